// The header and footer: the classes with their keys, messages, and how many labels are saved.

import { byId, store } from "./store.js";
import { number, visible } from "./text.js";

const MAX_BUTTONS = 100; // of more classes the others are found by typing
const MAX_MATCHES = 30; // offered while a name is typed
export const CLASS_KEYS = [..."1234567890abcdefghijklmopqrstvwyz"]; // n, u and x have other meanings

export function showError(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

export function showClasses() {
  const { classes } = store.server, chosen = byId("class").value;
  byId("classes").replaceChildren(...classes.slice(0, MAX_BUTTONS).map((name, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = index ? -1 : 0;
    button.dataset.index = index;
    const key = document.createElement("kbd");
    key.textContent = CLASS_KEYS[index] ?? "·";
    button.append(key, visible(name));
    button.title = visible(name);
    return button;
  }));
  if (classes.length > MAX_BUTTONS) {
    const rest = document.createElement("span");
    rest.textContent = `and ${number(classes.length - MAX_BUTTONS)} more: press n and type the name`;
    byId("classes").append(rest);
  }
  byId("class").replaceChildren(...classes.map((name) => new Option(visible(name), name)));
  if (classes.includes(chosen)) byId("class").value = chosen;
  showMatches();
}

// Offers the classes that contain what was typed; browsers are slow with a list of thousands.
function showMatches() {
  const typed = byId("class-name").value.trim().toLowerCase();
  const matches = store.server.classes.filter((name) => name.toLowerCase().includes(typed)).slice(0, MAX_MATCHES);
  byId("class-names").replaceChildren(...matches.map((name) => new Option(visible(name), name)));
}

export function showSaved() {
  const { labelled, labels_file: file } = store.server;
  const labels = `${number(labelled)} label${labelled === 1 ? "" : "s"} in ${visible(file.split("/").pop())}`;
  byId("saved").textContent = store.unsaved ? "saving…" : labels;
  byId("saved").title = visible(file);
}

byId("class-name").addEventListener("input", showMatches);

// The toolbar of classes is one stop of the Tab key; arrows move within it.
byId("classes").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const buttons = [...byId("classes").querySelectorAll("button")];
  buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
});

// The header and footer: the classes with their keys, messages, and how many labels are saved.

import { byId, store } from "./store.js";
import { number, visible } from "./text.js";

export const CLASS_KEYS = [..."1234567890abcdefghijklmopqrstvwyz"]; // n, u and x have other meanings

export function showError(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

export function showClasses() {
  const { classes } = store.server, chosen = byId("class").value;
  byId("classes").replaceChildren(...classes.map((name, index) => {
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
  const options = () => classes.map((name) => new Option(visible(name), name));
  byId("class").replaceChildren(...options());
  if (classes.includes(chosen)) byId("class").value = chosen;
  byId("class-names").replaceChildren(...options());
}

export function showSaved() {
  const { labelled, labels_file: file } = store.server;
  const labels = `${number(labelled)} label${labelled === 1 ? "" : "s"} in ${visible(file.split("/").pop())}`;
  byId("saved").textContent = store.unsaved ? "saving…" : labels;
  byId("saved").title = visible(file);
}

// The toolbar of classes is one stop of the Tab key; arrows move within it.
byId("classes").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const buttons = [...byId("classes").children];
  buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
});

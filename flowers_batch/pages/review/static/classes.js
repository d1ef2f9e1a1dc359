// The bar of classes: their keys, their numbers of labelled photos, and the field in which a name is typed.

import { byId, store } from "./store.js";
import { number, plural, visible } from "./text.js";

const MAX_BUTTONS = 100; // of more classes the others are found by typing
const MAX_MATCHES = 30; // offered while a name is typed
const CLASS_KEYS = [..."1234567890abcdefghjklmopqrvwyz"]; // i, n, s, t, u and x have other meanings

let shown; // the names of the classes that are shown

// The class that a key stands for, with Shift too; undefined if there is none.
export function classOfKey(event) {
  const key = event.shiftKey && event.code?.startsWith("Digit") ? event.code.at(-1) : event.key.toLowerCase();
  return store.server?.classes[CLASS_KEYS.indexOf(key)];
}

export function showClasses() {
  const { classes } = store.server;
  if (classes.join("\n") !== shown) {
    shown = classes.join("\n");
    fillToolbar(classes);
    fillFilter(classes);
    showMatches();
  }
  showCounts();
}

// The toolbar is one stop of the Tab key.
function fillToolbar(classes) {
  const toolbar = byId("classes"), focused = toolbar.contains(document.activeElement) ? document.activeElement.dataset.index : undefined;
  toolbar.replaceChildren(...classes.slice(0, MAX_BUTTONS).map(createButton));
  if (focused !== undefined) toolbar.children[focused]?.focus();
  if (classes.length && classes.length <= MAX_BUTTONS) return;
  const note = document.createElement("span");
  note.textContent = classes.length
    ? `and ${number(classes.length - MAX_BUTTONS)} more: press n and type the name`
    : "There are no classes yet: press n, type the name of the first one, and Enter.";
  toolbar.append(note);
}

function fillFilter(classes) {
  const filter = byId("class"), chosen = filter.value;
  filter.replaceChildren(new Option("any class", ""), ...classes.map((name) => new Option(visible(name), name)));
  filter.value = classes.includes(chosen) ? chosen : "";
}

function showCounts() {
  const { classes, class_counts: counts } = store.server;
  for (const button of byId("classes").querySelectorAll("button")) {
    const name = classes[button.dataset.index], count = counts[name] ?? 0;
    button.lastChild.textContent = number(count);
    button.lastChild.hidden = !count;
    button.title = `${visible(name)}: ${plural(count, "labelled photo")}`;
  }
}

function createButton(name, index) {
  const button = document.createElement("button"), key = document.createElement("kbd"), text = document.createElement("span");
  button.type = "button";
  button.tabIndex = index ? -1 : 0;
  button.dataset.index = index;
  key.textContent = CLASS_KEYS[index] ?? "·";
  text.textContent = visible(name);
  button.append(key, text, document.createElement("small"));
  return button;
}

// Calls a function with the class that a person clicks or types.
export function onClassChosen(action) {
  byId("classes").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) action(store.server.classes[button.dataset.index]);
  });
  byId("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("class-name").value.trim();
    byId("class-name").value = "";
    showMatches();
    if (name) action(name);
  });
}

// Offers the classes that contain what was typed; browsers are slow with a list of thousands.
function showMatches() {
  const typed = byId("class-name").value.trim().toLowerCase();
  const matches = store.server.classes.filter((name) => name.toLowerCase().includes(typed)).slice(0, MAX_MATCHES);
  byId("class-names").replaceChildren(...matches.map((name) => new Option(visible(name), name)));
}

byId("class-name").addEventListener("input", showMatches);

// Arrows move within the toolbar of classes.
byId("classes").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const buttons = [...byId("classes").querySelectorAll("button")];
  buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
  event.stopPropagation();
});

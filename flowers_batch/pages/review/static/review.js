// The review page: opens views, and connects buttons and keys with what they do.

import { request } from "./api.js";
import { moveTo, redraw, showRows, targetOf, toggle } from "./grid.js";
import { CLASS_KEYS, showClasses, showError, showSaved } from "./header.js";
import { allSent, labelSelected, undo } from "./labelling.js";
import { byId, store } from "./store.js";
import { number, visible } from "./text.js";
import "./training.js";

const POLL_MILLISECONDS = 500;
const grid = byId("grid");

async function start() {
  store.server = await request("state");
  const { title, views } = store.server;
  document.title = `Review ${visible(title.split("/").filter(Boolean).pop() ?? "")}`;
  for (const [name, words] of Object.entries(views)) byId("view").append(new Option(words, name));
  showNotices();
  showClasses();
  showSaved();
  await openView();
  grid.focus();
}

// Shows what a person should know about the predictions; some of it the server finds out after its start.
function showNotices() {
  const { notices, notices_are_complete: areComplete } = store.server;
  byId("notices").replaceChildren(...notices.map((sentence) => {
    const line = document.createElement("p");
    line.textContent = visible(sentence);
    return line;
  }));
  if (!areComplete) setTimeout(() => request("state").then((server) => { store.server = server; showNotices(); }, () => {}), POLL_MILLISECONDS);
}

async function openView() {
  const name = byId("view").value, view = ++store.view;
  byId("class-choice").hidden = name !== "class";
  byId("count").textContent = "loading…";
  byId("empty").hidden = true;
  let found = { rows: [], total: 0 };
  try {
    await allSent();
    found = await select(name, view);
    if (view === store.view) showError("");
  } catch (error) {
    if (view === store.view) showError(error.message);
  }
  if (view !== store.view) return;
  const first = found.rows.length < found.total ? `the first ${number(found.rows.length)} of ` : "";
  byId("count").textContent = `${first}${number(found.total)} photo${found.total === 1 ? "" : "s"}`;
  byId("empty").hidden = found.rows.length > 0;
  showRows(found.rows, found.suggested ?? {});
}

// Returns the rows of a view, after waiting while the server computes it.
async function select(name, view) {
  for (;;) {
    const found = await request(`view?${new URLSearchParams({ name, label: name === "class" ? byId("class").value : "" })}`);
    if (found.computing === undefined || view !== store.view) return found;
    showRows([], {});
    byId("count").textContent = `computing… ${visible(found.computing)}`;
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

for (const name of ["view", "class"]) {
  // After a choice with the pointer the photos get the focus; with keys one may go on choosing until Enter.
  let byPointer = false;
  byId(name).addEventListener("pointerdown", () => { byPointer = true; });
  byId(name).addEventListener("keydown", (event) => { byPointer = false; if (event.key === "Enter") grid.focus(); });
  byId(name).addEventListener("change", () => openView().then(() => { redraw(); if (byPointer) grid.focus(); }));
}

byId("undo").addEventListener("click", () => { undo(); grid.focus(); });
byId("accept").addEventListener("click", () => { labelSelected(null); grid.focus(); });
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("classes").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  labelSelected(store.server.classes[button.dataset.index]);
  grid.focus();
});
byId("class-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("class-name").value.trim();
  if (name) labelSelected(name);
  byId("class-name").value = "";
  grid.focus();
});
byId("class-name").addEventListener("keydown", (event) => { if (event.key === "Escape") grid.focus(); });

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const actions = { " ": () => labelSelected(null), u: undo, x: () => toggle(store.current), Escape: () => moveTo(store.current),
    n: () => byId("class-name").focus(), "?": () => byId("help").showModal() };
  const target = targetOf(event.key), name = store.server?.classes[CLASS_KEYS.indexOf(key)];
  if (target !== undefined) moveTo(target, event.shiftKey);
  else if (event.repeat && (key in actions || name !== undefined)); // holding a key labels only once
  else if (key in actions) actions[key]();
  else if (name !== undefined) labelSelected(name);
  else return;
  event.preventDefault();
});

start().then(redraw, (error) => showError(error.message));

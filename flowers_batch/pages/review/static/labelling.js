// Labelling and undoing. Changes are shown at once, and sent to the server one after the other.

import { request } from "./api.js";
import { moveTo, redraw, refetch } from "./grid.js";
import { showClasses, showError, showSaved } from "./header.js";
import { shownLabel, store } from "./store.js";
import { number } from "./text.js";

let pending = Promise.resolve();
const changedRows = []; // of each change, so that undoing it moves there at once

// Resolves when all changes so far have been sent.
export const allSent = () => pending;

// Labels the selected photos, also those not yet fetched. A name of null accepts the label that each one shows.
export function labelSelected(name) {
  const positions = store.selected.size ? [...store.selected].sort((a, b) => a - b) : [store.current];
  const rows = positions.map((position) => store.rows[position]).filter((row) => row !== undefined && store.photos.get(row)?.status !== "failed");
  if (!rows.length) return;
  const labels = name ?? rows.map((row) => (store.photos.has(row) ? shownLabel(store.photos.get(row)) : store.suggested[row]?.[0] ?? null));
  for (const row of rows) {
    const photo = store.photos.get(row);
    if (photo) Object.assign(photo, { label: name ?? shownLabel(photo), saving: true });
  }
  changedRows.push(rows);
  send("label", { rows, labels }, rows);
  moveTo(positions[positions.length - 1] + 1);
}

export function undo() {
  const position = store.rows.indexOf(changedRows.pop()?.[0]);
  if (position >= 0) moveTo(position);
  send("undo", {});
}

function send(path, body, rows = []) {
  store.unsaved++;
  showSaved();
  pending = pending.then(async () => {
    try {
      apply(await request(path, body), path);
    } catch (error) {
      showError(error.message);
      for (const row of rows) Object.assign(store.photos.get(row) ?? {}, { label: null, saving: false });
      refetch();
    }
    store.unsaved--;
    showSaved();
    redraw();
  });
}

function apply(change, path) {
  const { server } = store;
  server.labelled = change.labelled;
  for (const { row, label } of change.labels) {
    const photo = store.photos.get(row);
    if (photo) Object.assign(photo, { label, saving: false });
  }
  const added = change.classes.filter((name) => !server.classes.includes(name));
  if (added.length) {
    server.classes = [...server.classes, ...added];
    showClasses();
  }
  const skipped = change.skipped ? `${number(change.skipped)} failed photos were not labelled.` : "";
  showError(path === "undo" && !change.labels.length ? "There is nothing to undo in this review." : skipped);
}

window.addEventListener("beforeunload", (event) => { if (store.unsaved) event.preventDefault(); });

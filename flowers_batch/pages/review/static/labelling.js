// Labelling and undoing. Changes are shown at once, and sent to the server one after the other.

import { request } from "./api.js";
import { showClasses } from "./classes.js";
import { refetch } from "./grid.js";
import { showError, showSaved } from "./messages.js";
import { isGrouped, moveTo, moveToSection, selectGroup, show } from "./selection.js";
import { chosenAt, shownLabel, store } from "./store.js";
import { number } from "./text.js";

let pending = Promise.resolve();
const changedRows = []; // of each change, so that undoing it moves there at once
const listeners = []; // called when the server has confirmed a change

export const onSaved = (listener) => listeners.push(listener);

// Resolves when all changes so far have been sent.
export const allSent = () => pending;

// Labels the selected photos, also those not yet fetched, and moves on. A name of null accepts the label that each one shows.
export function labelSelected(name) {
  const positions = store.selected.size || isGrouped() ? [...store.selected].sort((a, b) => a - b) : [store.current];
  if (!labelPositions(positions, name)) {
    if (name === null) showError("There is no label to accept yet: press the key of a class, or n to type its name.");
    return;
  }
  if (isGrouped()) moveOn();
  else moveTo(positions[positions.length - 1] + 1);
}

// Labels the current photo alone; in a group the others stay selected.
export function labelCurrent(name) {
  if (!labelPositions([store.current], name)) return;
  if (isGrouped()) { selectGroup(); show(); } else moveTo(store.current + 1);
}

// After a picked part of a group was labelled the rest of it is selected, otherwise the next group.
function moveOn() {
  const wasPicked = store.isPicked;
  selectGroup();
  const isLeft = [...store.selected].some((position) => !store.photos.get(store.rows[position])?.label);
  if ((wasPicked && isLeft) || !moveToSection(1)) show();
}

// Labels photos; returns whether there was one that can be labelled.
export function labelPositions(positions, name) {
  const labelled = positions.filter((position) => isLabelledBy(position, name)), rows = labelled.map((position) => store.rows[position]);
  if (!rows.length) return false;
  const labels = name ?? rows.map((row) => (store.photos.has(row) ? shownLabel(store.photos.get(row)) : store.suggested[row]?.[0] ?? null));
  const chosen = labelled.map(chosenAt);
  for (const row of rows) {
    store.touched.delete(row);
    const photo = store.photos.get(row);
    if (photo) Object.assign(photo, { label: name ?? shownLabel(photo), saving: true });
  }
  changedRows.push(rows);
  send("label", { rows, labels, chosen: chosen.every((each) => each === chosen[0]) ? chosen[0] : chosen }, rows);
  return true;
}

// Whether a photo gets a label: not one that failed, nor by accepting what is not known.
function isLabelledBy(position, name) {
  const row = store.rows[position], photo = store.photos.get(row);
  return row !== undefined && photo?.status !== "failed" && (name !== null || !photo || shownLabel(photo) !== null);
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
    show();
    for (const listener of listeners) listener();
  });
}

function apply(change, path) {
  const { server } = store;
  server.labelled = change.labelled;
  server.class_counts = change.class_counts;
  for (const { row, label } of change.labels) {
    const photo = store.photos.get(row);
    if (photo) Object.assign(photo, { label, saving: false });
  }
  if (path === "undo" && isGrouped() && !store.isPicked) selectGroup();
  server.classes = [...new Set([...server.classes, ...change.classes])];
  showClasses();
  const skipped = change.skipped ? `${number(change.skipped)} failed photos were not labelled.` : "";
  showError(path === "undo" && !change.labels.length ? "There is nothing to undo in this review." : skipped);
}

window.addEventListener("beforeunload", (event) => { if (store.unsaved) event.preventDefault(); });

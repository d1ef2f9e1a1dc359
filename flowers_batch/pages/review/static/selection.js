// Moving and selecting. In groups a whole group is selected, and a person takes photos out; elsewhere one photo is.

import { draw, focusGrid, onDescribed, redraw, reveal, revealSection } from "./grid.js";
import { byId, photoAt, RANDOM, sectionAt, store } from "./store.js";

const spacer = byId("spacer");
const listeners = []; // called when the current group or the selection has changed
let anchor = 0; // the position where a selected range begins
let toggled; // the position that the last click took out of its group, or put back
let addsToSelection = false; // whether a plain click adds to the selection

export const isGrouped = () => store.sections.length > 0;
export const onSelected = (listener) => listeners.push(listener);

const positionsOf = (section) => (section ? range(section.start, section.end) : []);
const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

export function show() {
  redraw();
  for (const listener of listeners) listener();
}

// Moves to a position and selects it, or with `extend` all positions from the anchor to it.
export function moveTo(position, extend = false) {
  if (!store.rows.length) return;
  const before = sectionAt(store.current);
  store.current = Math.max(0, Math.min(store.rows.length - 1, position));
  if (extend) selectRange();
  else {
    anchor = store.current;
    if (!isGrouped()) store.selected = new Set([store.current]);
    else if (sectionAt(store.current) !== before) return enter(store.sections.indexOf(sectionAt(store.current)), store.current);
  }
  reveal(store.current);
  draw();
  show();
}

function selectRange() {
  const section = sectionAt(anchor);
  if (section) store.current = Math.max(section.start, Math.min(section.end - 1, store.current));
  store.selected = new Set(range(Math.min(anchor, store.current), Math.max(anchor, store.current) + 1));
  store.isPicked = isGrouped();
}

// Selects the photos of the current group: those without a label that were not taken out; all, if every photo has a label.
export function selectGroup() {
  const section = sectionAt(store.current), isTakenOut = (position) => store.touched.get(store.rows[position]) === false;
  const possible = positionsOf(section).filter((position) => photoAt(position)?.status !== "failed" && !isTakenOut(position));
  const wanted = possible.filter((position) => store.touched.get(store.rows[position]) || section.kind === RANDOM || !photoAt(position)?.label);
  store.selected = new Set(wanted.length ? wanted : possible);
  store.isPicked = false;
}

// Selects only the current photo; in a group, all of its photos again.
export function reset() {
  if (!isGrouped()) return moveTo(store.current);
  for (const position of positionsOf(sectionAt(store.current))) store.touched.delete(store.rows[position]);
  selectGroup();
  show();
}

// Adds a position to the selection, or removes it; in a group this takes the photo out, or puts it back.
export function toggle(position) {
  store.current = anchor = position;
  const isRemoved = store.selected.delete(position);
  if (!isRemoved) store.selected.add(position);
  if (isGrouped()) store.touched.set(store.rows[position], !isRemoved);
  show();
}

// Positions of the current group that were taken out.
export const takenOut = () => positionsOf(sectionAt(store.current)).filter((position) => store.touched.get(store.rows[position]) === false);

// Selects those photos of the group that were taken out, to give them another label first.
export function pickTakenOut() {
  const picked = new Set(takenOut());
  for (const position of picked) store.touched.delete(store.rows[position]);
  if (picked.size) pick((position) => picked.has(position));
}

// Selects a part of the current group; after it was labelled, the rest is selected.
export function pick(isPicked) {
  store.selected = new Set(positionsOf(sectionAt(store.current)).filter(isPicked));
  store.isPicked = true;
  show();
}

// Moves to the group after (1) or before (-1) the current one; returns whether there is one.
export function moveToSection(step) {
  const index = store.sections.indexOf(sectionAt(store.current)) + step;
  if (!store.sections[index]) return false;
  enter(index);
  return true;
}

// Moves to a group, to its first photo unless another one is named, and selects its photos.
export function enter(index, position = store.sections[index].start) {
  store.current = anchor = position;
  selectGroup();
  draw();
  revealSection(index);
  show();
}

function click(position, event) {
  if (event.detail < 2) toggled = undefined;
  if (event.shiftKey) moveTo(position, true);
  else if (isGrouped()) {
    if (sectionAt(position) !== sectionAt(store.current)) moveTo(position);
    else if (event.detail < 2) toggle(toggled = position); // the second click of a double click changes nothing
  } else if (addsToSelection || event.ctrlKey || event.metaKey) toggle(position);
  else moveTo(position);
}

// Takes back what the first click of a double click did.
export function revertClick(position) {
  if (toggled === position) toggle(position);
  toggled = undefined;
}

spacer.addEventListener("click", (event) => {
  const tile = event.target.closest(".photo"), heading = event.target.closest(".heading");
  focusGrid();
  if (tile) click(Number(tile.dataset.position), event);
  else if (heading) enter(Number(heading.dataset.section));
});

byId("select-several").addEventListener("click", () => {
  addsToSelection = !addsToSelection;
  byId("select-several").setAttribute("aria-pressed", addsToSelection);
});

// A photo that turns out to have a label already is not selected with its group.
onDescribed(() => {
  if (!isGrouped()) return;
  const before = store.selected.size;
  if (!store.isPicked) selectGroup();
  if (store.selected.size !== before) show();
});

// The grid of photos: only the tiles in sight, and a few lines more, are in the page.

import { request } from "./api.js";
import { Layout } from "./layout.js";
import { showError } from "./messages.js";
import { byId, store } from "./store.js";
import { createTile, fillTile, showStatus } from "./tile.js";
import { cancelThumbnail } from "./thumbnails.js";
import { createHeading, fillHeading } from "./heading.js";
import { tileSize } from "./size.js";

const TEXT_HEIGHT = 58; // pixels below a thumbnail
const MIN_WIDTH_WITH_TEXT = 120; // pixels of a tile; in smaller ones the label stands on the photo
const SPARE_LINES = 2; // drawn beyond each edge
const CHUNK = 200; // photos described by one request

const grid = byId("grid"), spacer = byId("spacer");
const calmly = matchMedia("(prefers-reduced-motion: reduce)");
const listeners = []; // called when photos were described
let layout = new Layout([], 0, 1, 1, 1);
let tiles = new Map(); // by position
let headings = new Map(); // by number of the section
let requested = new Set(); // chunks

export const onDescribed = (listener) => listeners.push(listener);

// Shows the photos of a view: `rows`, and those of `sections`, `chosen`, `random`, `suggested` and `similarities` that it has.
export function showRows(rows, about = {}) {
  Object.assign(store, { rows, sections: [], isDense: false, chosen: "view", random: new Set(), suggested: {}, similarities: new Map(), touched: new Map() }, about);
  Object.assign(store, { photos: new Map(), current: 0, selected: new Set(rows.length ? [0] : []), isPicked: false });
  clear();
  grid.scrollTop = 0;
  layOut();
}

// Shows other rows at the same place: positions may have changed, what is known of photos is kept.
export function replaceRows() {
  clear();
  layOut();
}

function clear() {
  requested = new Set();
  for (const tile of tiles.values()) removeTile(tile);
  for (const heading of headings.values()) heading.remove();
  [tiles, headings] = [new Map(), new Map()];
}

// Columns, width and height of tiles, and the height of the grid.
export function measure(isGrouped = store.sections.length > 0) {
  const wanted = tileSize(store.isDense);
  const columns = Math.max(2, Math.round(spacer.clientWidth / wanted)), width = Math.floor(spacer.clientWidth / columns);
  const isCompact = isGrouped || width < MIN_WIDTH_WITH_TEXT;
  return { columns, width, isCompact, lineHeight: width + (isCompact ? 0 : TEXT_HEIGHT), height: grid.clientHeight };
}

export function layOut() {
  const { columns, width, isCompact, lineHeight } = measure();
  grid.classList.toggle("compact", isCompact);
  layout = new Layout(store.sections, store.rows.length, columns, width, lineHeight);
  spacer.style.height = `${layout.height}px`;
  for (const [position, tile] of tiles) place(position, tile);
  for (const [index, heading] of headings) placeHeading(index, heading);
  draw();
}

function place(position, tile) {
  const [left, top] = layout.placeOf(position);
  tile.style.width = `${layout.width}px`;
  tile.style.height = `${layout.lineHeight}px`;
  tile.style.transform = `translate(${left}px, ${top}px)`;
}

function placeHeading(index, heading) {
  heading.style.transform = `translateY(${layout.blocks[index].head}px)`;
}

// Adds the tiles that came into sight, and removes others.
export function draw() {
  const spare = SPARE_LINES * layout.lineHeight, { rows, current } = store;
  const [first, end] = rows.length ? layout.between(Math.max(0, grid.scrollTop - spare), grid.scrollTop + grid.clientHeight + spare) : [0, 0];
  for (const [position, tile] of tiles) {
    if ((position >= first && position < end) || position === current) continue;
    removeTile(tile);
    tiles.delete(position);
  }
  for (let position = end - 1; position >= first; position--) addTile(position); // the thumbnail wanted last is fetched first
  if (rows.length) addTile(current);
  drawHeadings(first, end);
  for (let chunk = Math.floor(first / CHUNK); chunk * CHUNK < end; chunk++) fetchChunk(chunk);
}

function drawHeadings(first, end) {
  if (!store.sections.length) return;
  const [low, high] = [layout.find("start", first), layout.find("start", Math.max(first, end - 1))];
  for (const [index, heading] of headings) {
    if (index >= low && index <= high) continue;
    heading.remove();
    headings.delete(index);
  }
  for (let index = low; index <= high; index++) {
    if (headings.has(index)) continue;
    const heading = createHeading(index);
    placeHeading(index, heading);
    headings.set(index, spacer.appendChild(heading));
    fillHeading(index, heading);
  }
}

function addTile(position) {
  if (tiles.has(position)) return;
  const tile = createTile(position);
  place(position, tile);
  tiles.set(position, spacer.appendChild(tile));
  fillTile(position, tile);
}

function removeTile(tile) {
  const image = tile.querySelector("img");
  tile.remove();
  if (image) cancelThumbnail(image);
}

async function fetchChunk(chunk) {
  if (requested.has(chunk)) return;
  requested.add(chunk);
  const view = store.view, asked = requested;
  try {
    const found = await request("photos", { rows: store.rows.slice(chunk * CHUNK, (chunk + 1) * CHUNK) });
    if (view !== store.view) return;
    for (const photo of found) if (!store.photos.get(photo.row)?.saving) store.photos.set(photo.row, photo);
    for (const listener of listeners) listener();
    for (const [position, tile] of tiles) if (Math.floor(position / CHUNK) === chunk) fillTile(position, tile);
    for (const [index, heading] of headings) fillHeading(index, heading);
    if (Math.floor(store.current / CHUNK) === chunk) showStatus();
  } catch (error) {
    asked.delete(chunk);
    if (view === store.view) showError(error.message);
  }
}

// Fetches the photos in sight again.
export function refetch() {
  requested = new Set();
  draw();
}

// Updates the tiles after a change of selection or labels.
export function redraw() {
  for (const [position, tile] of tiles) fillTile(position, tile);
  for (const [index, heading] of headings) fillHeading(index, heading);
  if (store.rows.length) grid.setAttribute("aria-activedescendant", `photo-${store.current}`);
  else grid.removeAttribute("aria-activedescendant");
  showStatus();
}

// Scrolls as far as needed to see a position.
export function reveal(position) {
  const [, top] = layout.placeOf(position), bottom = top + layout.lineHeight;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (bottom > grid.scrollTop + grid.clientHeight) grid.scrollTop = bottom - grid.clientHeight + 8;
}

// Scrolls a section to the top.
export function revealSection(index) {
  grid.scrollTo({ top: layout.blocks[index].head, behavior: calmly.matches ? "auto" : "smooth" });
}

// Gives the photos the keyboard. Scrolling to the focus would end a scroll that is under way.
export const focusGrid = () => grid.focus({ preventScroll: true });

// The position after the last one in sight.
export const endOfSight = () => layout.between(grid.scrollTop, grid.scrollTop + grid.clientHeight)[1];

// The position that a key moves to; undefined if it does not move.
export function targetOf(key) {
  const { current, rows } = store, page = Math.max(1, Math.floor(grid.clientHeight / layout.lineHeight)) * layout.columns;
  const targets = {
    ArrowLeft: () => current - 1,
    ArrowRight: () => current + 1,
    ArrowUp: () => layout.neighbour(current, -1),
    ArrowDown: () => layout.neighbour(current, 1),
    PageUp: () => current - page,
    PageDown: () => current + page,
    Home: () => 0,
    End: () => rows.length - 1,
  };
  return targets[key]?.();
}

grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });

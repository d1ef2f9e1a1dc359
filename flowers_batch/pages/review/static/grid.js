// The grid of photos: only the tiles in sight, and a few lines more, are in the page. Moving and selecting.

import { request } from "./api.js";
import { showError } from "./header.js";
import { byId, store } from "./store.js";
import { createTile, fillTile, showStatus } from "./tile.js";
import { cancelThumbnail } from "./thumbnails.js";

const MIN_WIDTH = 168; // pixels of a tile
const TEXT_HEIGHT = 58; // pixels below a thumbnail
const SPARE_LINES = 2; // drawn beyond each edge
const CHUNK = 200; // photos described by one request

const grid = byId("grid"), spacer = byId("spacer");
let tiles = new Map(); // by position
let requested = new Set(); // chunks
let anchor = 0; // the position where a selected range begins
let columns = 1, width = MIN_WIDTH;
let addsToSelection = false; // whether a plain click adds to the selection

const lineHeight = () => width + TEXT_HEIGHT;

// Shows the rows of a view.
export function showRows(rows, suggested) {
  Object.assign(store, { rows, suggested, photos: new Map(), current: 0, selected: new Set(rows.length ? [0] : []) });
  anchor = 0;
  requested = new Set();
  for (const tile of tiles.values()) removeTile(tile);
  tiles = new Map();
  grid.scrollTop = 0;
  layOut();
}

export function layOut() {
  columns = Math.max(2, Math.floor(spacer.clientWidth / MIN_WIDTH));
  width = Math.floor(spacer.clientWidth / columns);
  spacer.style.height = `${Math.ceil(store.rows.length / columns) * lineHeight()}px`;
  for (const [position, tile] of tiles) place(position, tile);
  draw();
}

function place(position, tile) {
  tile.style.width = `${width}px`;
  tile.style.height = `${lineHeight()}px`;
  tile.style.transform = `translate(${(position % columns) * width}px, ${Math.floor(position / columns) * lineHeight()}px)`;
}

// Adds the tiles that came into sight, and removes others.
export function draw() {
  const line = lineHeight();
  const first = Math.max(0, (Math.floor(grid.scrollTop / line) - SPARE_LINES) * columns);
  const end = Math.min(store.rows.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / line) + SPARE_LINES) * columns);
  for (const [position, tile] of tiles) {
    if ((position >= first && position < end) || position === store.current) continue;
    removeTile(tile);
    tiles.delete(position);
  }
  for (let position = first; position < end; position++) addTile(position);
  if (store.rows.length) addTile(store.current);
  for (let chunk = Math.floor(first / CHUNK); chunk * CHUNK < end; chunk++) fetchChunk(chunk);
}

function addTile(position) {
  if (tiles.has(position)) return;
  const tile = createTile(position, (event) => click(position, event));
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
  const view = store.view;
  try {
    const found = await request("photos", { rows: store.rows.slice(chunk * CHUNK, (chunk + 1) * CHUNK) });
    if (view !== store.view) return;
    for (const photo of found) if (!store.photos.get(photo.row)?.saving) store.photos.set(photo.row, photo);
    for (const [position, tile] of tiles) if (Math.floor(position / CHUNK) === chunk) fillTile(position, tile);
    if (Math.floor(store.current / CHUNK) === chunk) showStatus();
  } catch (error) {
    requested.delete(chunk);
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
  if (store.rows.length) grid.setAttribute("aria-activedescendant", `photo-${store.current}`);
  else grid.removeAttribute("aria-activedescendant");
  showStatus();
}

// Moves to a position and selects it, or with `extend` all positions from the anchor to it.
export function moveTo(position, extend = false) {
  if (!store.rows.length) return;
  store.current = Math.max(0, Math.min(store.rows.length - 1, position));
  if (!extend) anchor = store.current;
  const [low, high] = [Math.min(anchor, store.current), Math.max(anchor, store.current)];
  store.selected = new Set(Array.from({ length: high - low + 1 }, (_, index) => low + index));
  const line = lineHeight(), top = Math.floor(store.current / columns) * line;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + line > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + line - grid.clientHeight + 8;
  draw();
  redraw();
}

// The position that a key moves to; undefined if it does not move.
export function targetOf(key) {
  const page = Math.max(1, Math.floor(grid.clientHeight / lineHeight())) * columns;
  const { current, rows } = store;
  return {
    ArrowLeft: current - 1,
    ArrowRight: current + 1,
    ArrowUp: current < columns ? current : current - columns,
    ArrowDown: current + columns,
    PageUp: current - page,
    PageDown: current + page,
    Home: 0,
    End: rows.length - 1,
  }[key];
}

// Adds a position to the selection, or removes it.
export function toggle(position) {
  store.current = anchor = position;
  if (!store.selected.delete(position)) store.selected.add(position);
  redraw();
}

function click(position, event) {
  grid.focus({ preventScroll: true });
  if (event.shiftKey) moveTo(position, true);
  else if (addsToSelection || event.ctrlKey || event.metaKey) toggle(position);
  else moveTo(position);
}

byId("select-several").addEventListener("click", () => {
  addsToSelection = !addsToSelection;
  byId("select-several").setAttribute("aria-pressed", addsToSelection);
});
grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => { layOut(); redraw(); }).observe(grid);

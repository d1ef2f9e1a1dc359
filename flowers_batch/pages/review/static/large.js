// One photo, large: a decode of its own at the size of the screen, and what is known about the photo.

import { fetchPatiently, request } from "./api.js";
import { classOfKey } from "./classes.js";
import { focusGrid, onDescribed } from "./grid.js";
import { labelPositions, onSaved, undo } from "./labelling.js";
import { showError } from "./messages.js";
import { isGrouped, moveTo, revertClick, selectGroup } from "./selection.js";
import { showSimilarTo } from "./similar.js";
import { byId, photoAt, sectionAt, store } from "./store.js";
import { describe, labelOf } from "./tile.js";
import { date, fileSize, number, percent, visible } from "./text.js";
import { dataUrl, keptThumbnail } from "./thumbnails.js";

const EDGES = [800, 1600, 2400]; // pixels of the longer edge, which the server makes
const KEPT = 6; // photos
const dialog = byId("large"), image = byId("large-image");
const home = byId("labelling"), visitor = [byId("classes"), byId("class-form")]; // which the dialog borrows
const kept = new Map(); // promises of data URLs by address

export const isLarge = () => dialog.open;

export function openLarge() {
  if (!store.rows.length || dialog.open) return;
  byId("large-classes").append(...visitor);
  dialog.showModal();
  dialog.focus();
  showPhoto();
}

dialog.addEventListener("close", () => {
  home.prepend(...visitor);
  focusGrid();
});

// Labels the photo, and goes on to the next one. A name of null accepts the label that is shown.
export function labelLarge(name) {
  if (!labelPositions([store.current], name)) return;
  if (!isGrouped()) return step(1);
  selectGroup();
  step(store.current + 1 < sectionAt(store.current).end ? 1 : 0); // the rest of the group is to be labelled yet
}

function step(count) {
  moveTo(store.current + count);
  showPhoto();
}

function showPhoto() {
  const row = store.rows[store.current];
  byId("large-previous").disabled = store.current === 0;
  byId("large-next").disabled = store.current === store.rows.length - 1;
  showImage(row);
  showKnown();
  showDetails(row);
}

async function showImage(row) {
  const address = addressOf(row), isCurrent = () => dialog.open && store.rows[store.current] === row;
  byId("large-problem").hidden = true;
  image.hidden = false;
  image.src = keptThumbnail(`thumbnail/${row}`) ?? "data:,";
  image.classList.add("loading");
  try {
    const url = await fetchLarge(address);
    if (!isCurrent()) return;
    image.src = url;
  } catch (error) {
    if (!isCurrent()) return;
    image.hidden = true;
    byId("large-problem").hidden = false;
    byId("large-problem").textContent = visible(error.message);
  }
  image.classList.remove("loading");
  const next = store.rows[store.current + 1];
  if (next !== undefined) fetchLarge(addressOf(next)).catch(() => {}); // so that it is there when it is wanted
}

function addressOf(row) {
  const pixels = Math.max(innerWidth, innerHeight) * devicePixelRatio;
  return `large/${row}?edge=${EDGES.find((edge) => edge >= pixels) ?? EDGES.at(-1)}`;
}

function fetchLarge(address) {
  if (!kept.has(address)) {
    kept.set(address, load(address).catch((error) => { kept.delete(address); throw error; }));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(address);
}

async function load(address) {
  const response = await fetchPatiently(address);
  if (!response.ok) throw new Error(await response.text());
  return dataUrl(await response.blob());
}

// Shows what the grid knows about the photo.
function showKnown() {
  const photo = photoAt(store.current), place = `${number(store.current + 1)} of ${number(store.rows.length)}`;
  byId("large-place").textContent = place;
  byId("large-path").textContent = photo ? visible(photo.path) : "";
  image.alt = photo ? visible(photo.path) : "";
  byId("large-label").textContent = photo ? labelOf(photo) || "no label yet" : "";
  byId("large-label").classList.toggle("labelled", Boolean(photo?.label));
  byId("large-detail").textContent = photo ? describe(photo) : "";
}

async function showDetails(row) {
  let details;
  try {
    details = await request(`photo/${row}`);
  } catch (error) {
    details = { top: [] };
    showError(error.message);
  }
  if (store.rows[store.current] !== row) return;
  const { bytes, width, height, modified } = details;
  const size = [width && height ? `${number(width)} × ${number(height)} pixels` : "", bytes ? fileSize(bytes) : ""];
  byId("large-facts").textContent = size.filter(Boolean).join(", ");
  byId("large-date").textContent = modified ? date(modified) : "";
  byId("large-top").replaceChildren(...(details.top ?? []).map(createClass));
  byId("large-top-part").hidden = !details.top?.length;
}

// One of the likeliest classes: a button that labels the photo with it.
function createClass([name, probability]) {
  const button = document.createElement("button"), bar = document.createElement("i");
  const text = document.createElement("span"), share = document.createElement("small");
  button.type = "button";
  button.title = `Label this photo ${visible(name)}`;
  text.textContent = visible(name);
  share.textContent = percent(probability);
  bar.style.width = percent(probability, 1);
  button.append(bar, text, share);
  button.addEventListener("click", () => labelLarge(name));
  return button;
}

const actions = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(-1), ArrowDown: () => step(1), " ": () => labelLarge(null),
  u: () => { undo(); showPhoto(); }, s: showSimilarHere, n: () => byId("class-name").focus(), Enter: () => dialog.close() };

function showSimilarHere() {
  const row = store.rows[store.current];
  dialog.close();
  showSimilarTo([row]);
}

dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if (event.target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter")) return; // presses the button
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, name = classOfKey(event);
  if (!(key in actions) && name === undefined) return;
  if (!event.repeat || key.startsWith("Arrow")) (actions[key] ?? (() => labelLarge(name)))();
  event.preventDefault();
});

byId("enlarge").addEventListener("click", openLarge);
byId("large-previous").addEventListener("click", () => step(-1));
byId("large-next").addEventListener("click", () => step(1));
byId("large-similar").addEventListener("click", showSimilarHere);
byId("large-close").addEventListener("click", () => dialog.close());
byId("spacer").addEventListener("dblclick", (event) => {
  const tile = event.target.closest(".photo");
  if (!tile) return;
  revertClick(Number(tile.dataset.position));
  if (Number(tile.dataset.position) !== store.current) moveTo(Number(tile.dataset.position));
  openLarge();
});

// Shows what labelling or a new classifier has changed.
function refreshLarge() {
  if (!dialog.open) return;
  showKnown();
  showDetails(store.rows[store.current]);
}

onDescribed(refreshLarge);
onSaved(refreshLarge);

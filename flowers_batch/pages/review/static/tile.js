// A tile of the grid: the thumbnail of a photo, its label, and what is known about it.

import { byId, isRandom, photoAt, sectionAt, shownLabel, store } from "./store.js";
import { number, percent, visible } from "./text.js";
import { fetchThumbnail } from "./thumbnails.js";

export function createTile(position) {
  const tile = document.createElement("div");
  tile.className = "photo";
  tile.id = `photo-${position}`;
  tile.dataset.position = position;
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-setsize", store.rows.length);
  tile.setAttribute("aria-posinset", position + 1);
  tile.append(...["img", "b", "small", "small", "span"].map((name) => document.createElement(name)));
  const image = tile.querySelector("img");
  image.alt = "";
  image.draggable = false;
  tile.lastChild.className = "mark";
  return tile;
}

export function fillTile(position, tile) {
  const photo = photoAt(position);
  tile.setAttribute("aria-selected", store.selected.has(position));
  tile.classList.toggle("current", position === store.current);
  tile.classList.toggle("aside", store.sections.length > 0 && sectionAt(position) !== sectionAt(store.current));
  tile.classList.toggle("taken-out", store.sections.length > 0 && store.touched.get(store.rows[position]) === false);
  if (!photo) return;
  const image = tile.querySelector("img"), [, label, detail, path, mark] = tile.children;
  if (image && photo.status === "failed") replaceImage(image, `${photo.reason}: ${photo.message}`);
  else if (image && !image.dataset.requested) {
    image.dataset.requested = "1";
    fetchThumbnail(image, `thumbnail/${photo.row}`, (sentence) => replaceImage(image, sentence));
  }
  tile.classList.toggle("labelled", photo.label !== null);
  tile.classList.toggle("saving", Boolean(photo.saving));
  label.textContent = labelOf(photo);
  detail.textContent = describe(photo);
  path.textContent = visible(photo.path);
  mark.textContent = markOf(position);
  tile.title = visible(photo.path);
}

function replaceImage(image, sentence) {
  const box = document.createElement("div");
  box.className = "missing";
  box.textContent = visible(sentence);
  image.replaceWith(box);
}

export const labelOf = (photo) => visible(shownLabel(photo) ?? (photo.status === "failed" ? "failed" : ""));

function markOf(position) {
  if (isRandom(position)) return "random";
  const section = sectionAt(position);
  return section?.kind === "duplicates" && section.start === position ? "keep" : "";
}

export function describe(photo) {
  if (photo.status === "failed") return visible(photo.reason);
  const similarity = store.similarities.get(photo.row);
  return similarity === undefined ? describePrediction(photo) : `similarity ${similarity.toFixed(2)}`;
}

function describePrediction(photo) {
  const { label, prediction, training_label: trained } = photo;
  if (prediction === null) return label === null ? "no label yet" : "";
  const suggestion = store.suggested[photo.row];
  if (suggestion && label === null) return `labelled ${visible(trained)}; ${percent(suggestion[1])} confident`;
  const confidence = percent(photo.probability);
  if (label !== null && label !== prediction) return `${store.server.kind === "codes" ? "predicted" : "was"} ${visible(prediction)}, ${confidence}`;
  if (label === null && trained && trained !== prediction) return `${confidence}, labelled ${visible(trained)}`;
  return `${confidence} confident`;
}

// Shows the current photo in the footer.
export function showStatus() {
  const photo = photoAt(store.current), total = store.rows.length;
  const place = total ? `${number(store.current + 1)} of ${number(total)}` : "";
  const selected = store.selected.size > 1 ? `, ${number(store.selected.size)} selected` : "";
  const label = photo && (labelOf(photo) || "no label yet");
  byId("status").textContent = photo ? `${place}${selected}: ${visible(photo.path)}, ${label}` : place;
}

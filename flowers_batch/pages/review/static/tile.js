// A tile of the grid: the thumbnail of a photo, its label, and what is known about it.

import { byId, photoAt, shownLabel, store } from "./store.js";
import { number, percent, visible } from "./text.js";
import { fetchThumbnail } from "./thumbnails.js";

export function createTile(position, onClick) {
  const tile = document.createElement("div");
  tile.className = "photo";
  tile.id = `photo-${position}`;
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-setsize", store.rows.length);
  tile.setAttribute("aria-posinset", position + 1);
  tile.append(document.createElement("img"), document.createElement("b"), document.createElement("small"), document.createElement("small"));
  const image = tile.querySelector("img");
  image.alt = "";
  image.draggable = false;
  tile.addEventListener("click", onClick);
  return tile;
}

export function fillTile(position, tile) {
  const photo = photoAt(position);
  tile.setAttribute("aria-selected", store.selected.has(position));
  tile.classList.toggle("current", position === store.current);
  if (!photo) return;
  const image = tile.querySelector("img"), [, label, detail, path] = tile.children;
  if (image && photo.status === "failed") replaceImage(image, `${photo.reason}: ${photo.message}`);
  else if (image && !image.dataset.requested) {
    image.dataset.requested = "1";
    fetchThumbnail(image, `thumbnail/${photo.row}`, (sentence) => replaceImage(image, sentence));
  }
  tile.classList.toggle("labelled", photo.label !== null);
  tile.classList.toggle("saving", Boolean(photo.saving));
  label.textContent = visible(shownLabel(photo) ?? (photo.status === "failed" ? "failed" : "no label"));
  detail.textContent = describe(photo);
  path.textContent = visible(photo.path);
  tile.title = visible(photo.path);
}

function replaceImage(image, sentence) {
  const box = document.createElement("div");
  box.className = "missing";
  box.textContent = visible(sentence);
  image.replaceWith(box);
}

function describe(photo) {
  if (photo.prediction === null) return visible(photo.reason ?? "");
  const suggestion = store.suggested[photo.row];
  if (suggestion && photo.label === null) return `labelled ${visible(photo.training_label)}; ${percent(suggestion[1])} confident`;
  const confidence = percent(photo.probability);
  const { label, prediction, training_label: trained } = photo;
  if (label !== null && label !== prediction) return `was ${visible(prediction)}, ${confidence}`;
  if (label === null && trained !== null && trained !== prediction) return `${confidence}, labelled ${visible(trained)}`;
  return `${confidence} confident`;
}

// Shows the current photo in the footer.
export function showStatus() {
  const photo = photoAt(store.current), total = store.rows.length;
  const place = total ? `${number(store.current + 1)} of ${number(total)}` : "";
  const selected = store.selected.size > 1 ? `, ${number(store.selected.size)} selected` : "";
  byId("status").textContent = photo ? `${place}${selected}: ${visible(photo.path)}, ${visible(shownLabel(photo) ?? photo.reason ?? "no label")}` : place;
}

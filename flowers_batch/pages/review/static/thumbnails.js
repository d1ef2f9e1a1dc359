// Fetches thumbnails, the ones requested last first; those scrolled out of sight are not fetched. The page keeps the ones
// shown last while it is open: the server has the browser store none.

import { fetchPatiently } from "./api.js";

const AT_ONCE = 4; // so that a connection is always free for labels
const KEPT = 2000; // thumbnails of some kilobytes each

const kept = new Map(); // data URLs by address, the one shown last at the end
const waiting = []; // triples of an <img>, its address and what to do if it cannot be shown, the latest last
const loading = new Map(); // what gives each <img> up

// Shows a thumbnail, or calls `onFailure` with a sentence.
export function fetchThumbnail(image, address, onFailure) {
  if (kept.has(address)) return show(image, address, kept.get(address));
  waiting.push([image, address, onFailure]);
  fetchNext();
}

// The thumbnail of an address, if the page has it.
export const keptThumbnail = (address) => kept.get(address);

export function cancelThumbnail(image) {
  loading.get(image)?.abort();
}

function fetchNext() {
  while (loading.size < AT_ONCE && waiting.length) {
    const [image, address, onFailure] = waiting.pop();
    if (image.isConnected) load(image, address, onFailure);
  }
}

async function load(image, address, onFailure) {
  const controller = new AbortController();
  loading.set(image, controller);
  try {
    const response = await fetchPatiently(address, { signal: controller.signal });
    if (!response.ok) throw new Error(await response.text());
    show(image, address, await dataUrl(await response.blob()));
  } catch (error) {
    if (!controller.signal.aborted) onFailure(error.message);
  }
  loading.delete(image);
  fetchNext();
}

function show(image, address, url) {
  image.src = url;
  kept.delete(address);
  kept.set(address, url);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error("It cannot be read.")));
    reader.readAsDataURL(blob);
  });
}

// Fetches thumbnails, the ones requested last first; those scrolled out of sight are not fetched.

import { fetchPatiently } from "./api.js";

const AT_ONCE = 4; // so that a connection is always free for labels

const waiting = []; // triples of an <img>, its address and what to do if it cannot be shown, the latest last
const loading = new Map(); // what gives each <img> up

// Shows a thumbnail, or calls `onFailure` with a sentence.
export function fetchThumbnail(image, address, onFailure) {
  waiting.push([image, address, onFailure]);
  fetchNext();
}

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
    image.src = await dataUrl(await response.blob());
  } catch (error) {
    if (!controller.signal.aborted) onFailure(error.message);
  }
  loading.delete(image);
  fetchNext();
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error("It cannot be read.")));
    reader.readAsDataURL(blob);
  });
}

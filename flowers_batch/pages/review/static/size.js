// The slider for the size of thumbnails.

import { byId } from "./store.js";
import { remember, remembered } from "./remembered.js";

const DENSE = 0.75; // of the size elsewhere: many photos of a large group are to be seen at once

const slider = byId("size");
const given = Number(remembered("size"));
if (given) slider.value = given; // the browser keeps it within the slider's limits

// The width that a tile is wanted to have, in pixels.
export const tileSize = (isDense) => Number(slider.value) * (isDense ? DENSE : 1);

export function onSizeChange(listener) {
  slider.addEventListener("input", () => { remember("size", slider.value); listener(); });
}

// Views that are opened from another one, with a way back: photos similar to some, and random photos.

import { request } from "./api.js";
import { draw, replaceRows, showRows } from "./grid.js";
import { showError } from "./messages.js";
import { show } from "./selection.js";
import { byId, RANDOM, store } from "./store.js";
import { number, plural, visible } from "./text.js";

const COUNT = 200; // similar photos
const POLL_MILLISECONDS = 500;
const KEPT = ["rows", "sections", "isDense", "chosen", "random", "suggested", "similarities", "photos", "current", "selected", "touched", "isPicked"];
const left = []; // the views that a way back leads to, the latest last

export const isAside = () => left.length > 0;

export function forgetWayBack() {
  left.length = 0;
  showWayBack();
}

function showWayBack() {
  byId("back").hidden = !left.length;
  byId("empty").hidden = store.rows.length > 0;
  document.body.classList.toggle("beside", left.length > 0);
}

// Shows the view again from which this one was opened, as it was left.
export function goBack() {
  const { scrollTop, count, ...kept } = left.pop();
  Object.assign(store, kept);
  store.view++;
  replaceRows();
  byId("grid").scrollTop = scrollTop;
  draw();
  byId("count").textContent = count;
  showWayBack();
  show();
}

export function showSimilar() {
  const rows = [...store.selected].sort((a, b) => a - b).map((position) => store.rows[position]);
  return showSimilarTo(rows.length || !store.rows.length ? rows : [store.rows[store.current]]);
}

export async function showSimilarTo(rows) {
  if (!rows.length) return;
  await openAside(`similar to ${plural(rows.length, "photo")}`, async () => {
    const found = await request("similar", { rows, count: COUNT });
    if (found.computing !== undefined) return found;
    return { rows: found.rows, about: { chosen: "search", similarities: new Map(found.rows.map((row, index) => [row, found.similarities[index]])) } };
  });
}

export async function showRandom() {
  await openAside("random photos", async () => {
    const found = await request("groups?labelled=no");
    if (found.computing !== undefined) return found;
    return { rows: found.random, about: { chosen: RANDOM, random: new Set(found.random) } };
  });
}

// Opens a view beside the one shown, to which `goBack` returns. `find` answers with rows, or with what is being computed.
async function openAside(words, find) {
  const view = store.view, count = byId("count").textContent;
  let found;
  try {
    for (;;) {
      found = await find();
      if (view !== store.view) return;
      if (found.computing === undefined) break;
      byId("count").textContent = `computing… ${visible(found.computing)}`;
      await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    }
  } catch (error) {
    byId("count").textContent = count;
    return showError(error.message);
  }
  left.push({ ...Object.fromEntries(KEPT.map((name) => [name, store[name]])), scrollTop: byId("grid").scrollTop, count });
  store.view++;
  showRows(found.rows, found.about);
  byId("count").textContent = `${number(found.rows.length)} ${words}`;
  showWayBack();
  show();
}

// Opens views, and has them follow the classifier without losing the place.

import { request } from "./api.js";
import { filters, onFilter, showFilters } from "./filters.js";
import { endOfSight, focusGrid, refetch, replaceRows, showRows } from "./grid.js";
import { showDuplicates, showGroups } from "./groups.js";
import { allSent } from "./labelling.js";
import { showError } from "./messages.js";
import { remember, remembered } from "./remembered.js";
import { show } from "./selection.js";
import { forgetWayBack, goBack, isAside } from "./similar.js";
import { byId, store } from "./store.js";
import { number, plural, visible } from "./text.js";

const POLL_MILLISECONDS = 500;
const GROUPS = "groups";
let open; // the name of the view
let described, ordered; // numbers of the fits that photos were described, and ordered, with

// Fills the list of views, and opens the first one, or the one that was open before the page was reloaded.
export async function openFirstView() {
  const { views } = store.server;
  byId("view").replaceChildren(...Object.entries(views).map(([name, words]) => new Option(visible(words), name)));
  if (remembered("view") in views) byId("view").value = remembered("view");
  await openView();
}

async function openView() {
  const name = byId("view").value, view = ++store.view;
  if (open === "class" && name !== open) byId("class").value = ""; // it chose the view's photos, and is no filter of the next view
  open = name;
  if (name === "class" && !byId("class").value) byId("class").value = store.server.classes[0] ?? "";
  described = ordered = store.server.fit?.number;
  forgetWayBack();
  showFilters(name);
  byId("count").textContent = "loading…";
  byId("empty").hidden = true;
  let found = { rows: [], total: 0 };
  try {
    await allSent();
    found = await find(name, view);
    if (view === store.view) showError("");
  } catch (error) {
    if (view === store.view) showError(error.message);
  }
  if (view === store.view) showFound(found, name);
}

// Returns what a view shows, after waiting while the server computes it.
async function find(name, view) {
  for (;;) {
    const found = await requestView(name);
    if (found.computing === undefined || view !== store.view) return found;
    showRows([]);
    show();
    byId("count").textContent = `computing… ${visible(found.computing)}`;
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

function requestView(name) {
  const given = filters(name);
  if (name === GROUPS) return request(`groups?${given}`);
  given.set("name", name);
  return request(`view?${given}`);
}

function showFound(found, name) {
  if (name === GROUPS) showGroups({ groups: found.groups ?? [], random: found.random }, "group");
  else if (found.groups) showDuplicates(found.groups);
  else showRows(found.rows, { chosen: chosenBy(name), random: new Set(found.random), suggested: found.suggested ?? {} });
  showCount(found);
  show();
}

// How photos of a view are chosen, as the labels file calls it.
function chosenBy(name) {
  if (name === "suggestions") return "suggested";
  return byId("search").value.trim() ? "search" : "view";
}

function showCount({ rows = [], groups, total }) {
  const first = (groups ?? rows).length < total ? `the first ${number((groups ?? rows).length)} of ` : "";
  byId("count").textContent = `${first}${plural(total, groups ? "group" : "photo")}`;
  byId("empty").hidden = (groups ?? rows).length > 0;
}

// Shows what a new classifier says. Photos in sight and above stay where they are; those below follow the new order.
export async function followFit() {
  const fit = store.server.fit?.number;
  if (fit !== described) refetch();
  described = fit;
  if (fit === ordered || isAside() || store.sections.length) return;
  ordered = fit;
  const name = byId("view").value, view = store.view;
  const found = await requestView(name).catch((error) => ({ error }));
  if (view !== store.view) return;
  if (!found.rows) { ordered = undefined; return; } // while it is being computed: next time
  reorder(found);
  showCount(found);
  show();
}

function reorder(found) {
  const rowOf = (position) => store.rows[position], current = rowOf(store.current), selected = [...store.selected].map(rowOf);
  const kept = store.rows.slice(0, endOfSight()), known = new Set(kept);
  const added = [...new Set([...selected, ...(current === undefined ? [] : [current]), ...found.rows])].filter((row) => !known.has(row));
  // A photo that stays for another reason was not drawn at random, although it would be next.
  const stays = new Set([...kept, ...selected, current]), random = (found.random ?? []).filter((row) => !stays.has(row));
  const rows = [...kept, ...added], positions = new Map(rows.map((row, position) => [row, position]));
  Object.assign(store, { rows, random: new Set([...store.random, ...random]), suggested: { ...store.suggested, ...found.suggested } });
  store.current = positions.get(current) ?? 0;
  store.selected = new Set(selected.map((row) => positions.get(row)));
  replaceRows();
}

export function returnFromAside() {
  if (!isAside()) return;
  goBack();
  refetch();
  followFit();
}

byId("back").addEventListener("click", () => { returnFromAside(); focusGrid(); });

for (const name of ["view", "class"]) {
  // After a choice with the pointer the photos get the focus; with keys one may go on choosing until Enter.
  let byPointer = false;
  byId(name).addEventListener("pointerdown", () => { byPointer = true; });
  byId(name).addEventListener("keydown", (event) => { byPointer = false; if (event.key === "Enter") focusGrid(); });
  byId(name).addEventListener("change", () => { if (byPointer) focusGrid(); });
}
byId("view").addEventListener("change", () => {
  remember("view", byId("view").value);
  openView();
});
onFilter((name) => {
  if (byId("view").value === GROUPS && name === "search" && "all" in store.server.views) byId("view").value = "all"; // groups have no names
  openView();
});

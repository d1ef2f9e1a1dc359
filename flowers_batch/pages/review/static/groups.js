// Groups of photos that look alike: one key labels those of a group that are shown and selected.

import { request } from "./api.js";
import { focusGrid, layOut, measure, replaceRows, showRows } from "./grid.js";
import { titleOf } from "./heading.js";
import { HEAD_HEIGHT } from "./layout.js";
import { filters } from "./filters.js";
import { showError } from "./messages.js";
import { enter, isGrouped, moveToSection, onSelected, pick, pickTakenOut, selectGroup, show, takenOut } from "./selection.js";
import { onSizeChange } from "./size.js";
import { byId, photoAt, RANDOM, sectionAt, store } from "./store.js";
import { number, plural } from "./text.js";

const RANDOM_EVERY = 4; // groups: one photo in five decisions is random, a fair sample that measures the accuracy
const DENSE = 12; // photos of the largest group, above which all tiles are smaller
const POLL_MILLISECONDS = 200;
const NEXT_GROUP = 0.5; // lines of the group after the current one that stay in sight
let most = 0; // photos of a group that are shown

// Shows groups, each as far as it fits into the window, with a random photo after every few.
export function showGroups({ groups, random = [] }, chosen) {
  const numbered = groups.map((group, index) => ({ kind: "group", number: index + 1, ...group }));
  showSections(mixed(numbered, random), { chosen });
}

// Shows near-duplicates: of each group the one to keep first.
export function showDuplicates(groups) {
  showSections(groups.map((rows) => ({ kind: "duplicates", rows })), { chosen: "view" });
}

function mixed(groups, random) {
  const left = [...random];
  return groups.flatMap((group, index) => ((index + 1) % RANDOM_EVERY || !left.length ? [group] : [group, { kind: RANDOM, rows: [left.shift()] }]));
}

function showSections(sections, about) {
  store.isDense = sections.some(({ rows }) => rows.length > DENSE);
  const { rows, sections: placed } = arrange(sections);
  showRows(rows, { ...about, sections: placed, isDense: store.isDense });
  if (isGrouped()) selectGroup();
}

// Returns the photos that are shown, of each section those that fit into the window, and where the sections are among them.
function arrange(sections) {
  most = mostShown();
  const placed = [], rows = [];
  for (const section of sections) {
    const start = rows.length;
    rows.push(...(section.kind === "duplicates" ? section.rows : section.rows.slice(0, most)));
    placed.push({ ...section, start, end: rows.length });
  }
  return { rows, sections: placed };
}

function mostShown() {
  const { columns, lineHeight, height } = measure(true);
  return columns * Math.max(1, Math.floor((height - 2 * HEAD_HEIGHT) / lineHeight - NEXT_GROUP));
}

// Arranges other sections, or the same ones in a window of another size, and stays at the same group.
function rearrange(sections) {
  const index = store.sections.indexOf(sectionAt(store.current)), offset = store.current - store.sections[index].start;
  const picked = new Set(store.isPicked ? [...store.selected].map((position) => store.rows[position]) : []);
  Object.assign(store, arrange(sections));
  const { start, end } = store.sections[index];
  store.current = Math.min(start + offset, end - 1);
  replaceRows();
  enter(index, store.current);
  if (picked.size) pick((position) => picked.has(store.rows[position]));
}

export async function split() {
  const section = sectionAt(store.current), view = store.view;
  if (section?.kind !== "group" || section.isSplitting) return;
  section.isSplitting = true;
  showBar();
  try {
    const { groups } = await halvesOf(section, view);
    if (view !== store.view) return;
    const index = store.sections.findIndex((each) => each.id === section.id && each.kind === "group");
    const parts = groups.map((group, part) => ({ kind: "group", number: `${section.number}${"ab"[part]}`, ...group }));
    if (index >= 0) rearrange(store.sections.toSpliced(index, 1, ...parts));
  } catch (error) {
    showError(error.message);
  }
  section.isSplitting = false;
  showBar();
}

// Returns the halves of a group, after waiting while the server computes them, unless another view is opened.
async function halvesOf(section, view) {
  for (;;) {
    const found = await request(`split?${filters("groups")}`, { id: section.id });
    if (found.computing === undefined || view !== store.view) return found;
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

// Shows what the current group is, and what can be done with it.
function showBar() {
  const section = sectionAt(store.current);
  byId("group-bar").hidden = !section;
  if (!section) return;
  const [title, hint] = [titleOf(section), hintOf(section)];
  if (byId("group-title").textContent !== title) byId("group-title").textContent = title;
  if (byId("group-hint").textContent !== hint) byId("group-hint").textContent = hint;
  byId("group-bar").classList.toggle("usual", section.kind !== RANDOM && !store.isPicked && !section.isSplitting);
  byId("split").hidden = section.kind !== "group";
  byId("split").disabled = Boolean(section.isSplitting) || section.size < 2;
  byId("others").hidden = section.kind === RANDOM;
  byId("others").disabled = !takenOut().length;
}

function hintOf(section) {
  const shown = section.end - section.start, selected = store.selected.size, isLast = section === store.sections.at(-1);
  if (section.isSplitting) return "splitting…";
  if (isLast && isLabelled(section)) return "That was the last one. Open the view again for photos that have no label yet, or choose another view.";
  if (section.kind === RANDOM) return "It counts for the accuracy: label it, whatever it shows.";
  if (store.isPicked) return `${plural(selected, "photo")} picked: the next class labels only ${selected === 1 ? "this one" : "these"}.`;
  if (selected < shown) return `${number(selected)} of the ${number(shown)} shown are selected.`;
  return shown === 1 ? "A class labels the one shown." : `A class labels the ${number(shown)} shown. Take out what does not belong.`;
}

function isLabelled({ start, end }) {
  for (let position = start; position < end; position++) if (photoAt(position)?.label) return true;
  return false;
}

function changeSize() {
  if (isGrouped() && mostShown() !== most) return rearrange(store.sections);
  layOut();
  show();
}

for (const [id, action] of Object.entries({ split, others: pickTakenOut, skip: () => moveToSection(1) })) {
  byId(id).addEventListener("click", () => { action(); focusGrid(); });
}
onSelected(showBar);
onSizeChange(changeSize);
new ResizeObserver(changeSize).observe(byId("grid"));

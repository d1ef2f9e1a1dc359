// The filters, which combine with each other and with the view.

import { byId, store } from "./store.js";
import { visible } from "./text.js";

const TYPING_MILLISECONDS = 300; // after a key press in a field, until its text is used
const NAMES = ["folder", "class", "low", "high", "labelled-filter", "search"];
const PARAMETERS = { class: "label", "labelled-filter": "labelled" }; // of the server, where they are called differently
const OF_GROUPS = ["folder", "labelled-filter"]; // the others have no meaning for groups

export function showFolders() {
  const { folders = [] } = store.server;
  byId("folder").replaceChildren(new Option("all folders", ""), ...folders.map((name) => new Option(visible(name), name)));
  byId("folder").hidden = folders.length < 2;
}

// The filters that are set, as parameters of a request for a view. Of groups, photos with a label are left out unless a
// filter says otherwise.
export function filters(view) {
  const given = Object.fromEntries(setIn(view).map((name) => [PARAMETERS[name] ?? name, valueOf(name)]));
  return new URLSearchParams(view === "groups" ? { labelled: "no", ...given } : given);
}

const setIn = (view) => NAMES.filter((name) => applies(name, view) && byId(name).value.trim());

const applies = (name, view) => view !== "groups" || OF_GROUPS.includes(name);

function valueOf(name) {
  const value = byId(name).value.trim();
  return name === "low" || name === "high" ? Math.min(100, Math.max(0, Number(value))) / 100 : value;
}

// Shows the filters that a view takes, and says how many are set. Groups have no names: a search opens another view.
export function showFilters(view) {
  byId("class").hidden = !applies("class", view);
  byId("certainty").hidden = !applies("low", view);
  const count = setIn(view).length;
  byId("filter-button").textContent = count ? `Filters (${count})` : "Filters";
  byId("clear").hidden = !count;
}

// Calls a function after a filter was changed.
export function onFilter(listener) {
  let timer;
  for (const name of NAMES) {
    const isTyped = byId(name).tagName === "INPUT";
    byId(name).addEventListener(isTyped ? "input" : "change", () => {
      clearTimeout(timer);
      timer = setTimeout(listener, isTyped ? TYPING_MILLISECONDS : 0, name);
    });
  }
  byId("clear").addEventListener("click", () => {
    for (const name of NAMES) byId(name).value = "";
    listener("");
  });
}

byId("filter-button").addEventListener("click", () => {
  const isOpen = byId("filters").classList.toggle("open");
  byId("filter-button").setAttribute("aria-expanded", isOpen);
});

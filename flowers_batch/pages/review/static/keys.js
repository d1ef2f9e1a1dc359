// The keys of the grid.

import { classOfKey } from "./classes.js";
import { fitNow } from "./fitting.js";
import { targetOf } from "./grid.js";
import { split } from "./groups.js";
import { labelCurrent, labelSelected, undo } from "./labelling.js";
import { openLarge } from "./large.js";
import { isGrouped, moveTo, moveToSection, pickTakenOut, reset, takenOut, toggle } from "./selection.js";
import { isAside, showSimilar } from "./similar.js";
import { byId, store } from "./store.js";
import { returnFromAside } from "./views.js";

const actions = {
  " ": () => labelSelected(null),
  "?": () => byId("help").showModal(),
  ".": () => moveToSection(1),
  ",": () => moveToSection(-1),
  "/": split,
  i: pickTakenOut,
  n: () => byId("class-name").focus(),
  s: showSimilar,
  t: () => (store.server.kind === "codes" ? fitNow() : byId("train-again").click()),
  u: undo,
  x: () => toggle(store.current),
  Enter: openLarge,
  Backspace: returnFromAside,
  Escape: () => (isAside() && !hasSelection() ? returnFromAside() : reset()),
};

// Whether there is a selection of several photos that Escape takes back first.
const hasSelection = () => (isGrouped() ? store.isPicked || takenOut().length > 0 : store.selected.size > 1);

byId("grid").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const target = targetOf(event.key), name = classOfKey(event);
  if (target !== undefined) moveTo(target, event.shiftKey);
  else if (event.repeat && (key in actions || name !== undefined)); // holding a key labels only once
  else if (key in actions) actions[key]();
  else if (name !== undefined) (event.shiftKey ? labelCurrent : labelSelected)(name);
  else return;
  event.preventDefault();
});

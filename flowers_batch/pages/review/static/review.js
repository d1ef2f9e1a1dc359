// The review page: starts, and connects buttons with what they do.

import { request } from "./api.js";
import { onClassChosen } from "./classes.js";
import { showFolders } from "./filters.js";
import { showState, watchServer } from "./fitting.js";
import { focusGrid } from "./grid.js";
import { labelSelected, undo } from "./labelling.js";
import { isLarge, labelLarge } from "./large.js";
import { showError } from "./messages.js";
import { byId, store } from "./store.js";
import { visible } from "./text.js";
import { openFirstView } from "./views.js";
import "./finish.js";
import "./keys.js";
import "./training.js";

async function start() {
  store.server = await request("state");
  document.title = `Review ${visible(store.server.title.split("/").filter(Boolean).pop() ?? "")}`;
  showFolders();
  showState();
  watchServer();
  await openFirstView();
  focusGrid();
}

function label(name) {
  if (isLarge()) { labelLarge(name); byId("large").focus(); return; }
  labelSelected(name);
  focusGrid();
}

onClassChosen(label);
byId("undo").addEventListener("click", () => { undo(); focusGrid(); });
byId("accept").addEventListener("click", () => label(null));
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("class-name").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (isLarge()) byId("large").focus(); else focusGrid();
  event.preventDefault(); // it would close the large view
  event.stopPropagation();
});

start().catch((error) => showError(error.message));

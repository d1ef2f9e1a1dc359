// Keeps the page up to date with the server: the classifier that is fitted in the background, and what is found out late.

import { request } from "./api.js";
import { showClasses } from "./classes.js";
import { focusGrid } from "./grid.js";
import { onSaved } from "./labelling.js";
import { showError, showNotices, showSaved } from "./messages.js";
import { showProgress } from "./progress.js";
import { byId, store } from "./store.js";
import { followFit } from "./views.js";

const BUSY_MILLISECONDS = 500; // between requests while something is going on
const IDLE_MILLISECONDS = 5000; // otherwise: labels of another window of the page
let timer;

function follow(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(update, milliseconds);
}

// Asks for the state, and shows what has changed.
async function update() {
  if (document.hidden) return follow(IDLE_MILLISECONDS);
  try {
    const server = await request("state");
    if (store.unsaved) return follow(BUSY_MILLISECONDS); // it may lack labels that are shown already
    store.server = server;
    showState();
    await followFit();
  } catch (error) {
    return showError(error.message);
  }
  const { fit, notices_are_complete: areComplete } = store.server;
  follow(fit?.running || !areComplete ? BUSY_MILLISECONDS : IDLE_MILLISECONDS);
}

// Shows everything that a state says besides views and photos.
export function showState() {
  showClasses();
  showSaved();
  showNotices();
  showProgress();
  const isOfCodes = store.server.kind === "codes";
  byId("fit-now").disabled = Boolean(store.server.fit?.running);
  for (const id of ["fit-now", "finish-button"]) byId(id).hidden = !isOfCodes;
  byId("train-again").hidden = isOfCodes;
}

export const watchServer = () => follow(BUSY_MILLISECONDS);

// Fits a classifier to the labels given so far.
export async function fitNow() {
  try {
    await request("train", {});
    showError("");
  } catch (error) {
    showError(error.message);
  }
  update();
}

byId("fit-now").addEventListener("click", () => { fitNow(); focusGrid(); });
onSaved(() => { showProgress(); follow(BUSY_MILLISECONDS); });
document.addEventListener("visibilitychange", () => follow(0));

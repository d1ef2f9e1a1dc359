// What a person should know: errors, notices, and whether labels are saved.

import { byId, store } from "./store.js";
import { plural, visible } from "./text.js";

export function showError(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

// Shows what there is to know about the photos; some of it the server finds out after its start.
export function showNotices() {
  byId("notices").replaceChildren(...store.server.notices.map((sentence) => {
    const line = document.createElement("p");
    line.textContent = visible(sentence);
    return line;
  }));
}

export function showSaved() {
  const { labelled, labels_file: file } = store.server;
  byId("saved").textContent = store.unsaved ? "saving…" : `${plural(labelled, "label")} in ${visible(file.split("/").pop())}`;
  byId("saved").title = visible(file);
}

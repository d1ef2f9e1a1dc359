// How far the work is: labelled photos, accuracy, and the part of the archive that is certain.

import { focusGrid } from "./grid.js";
import { showRandom } from "./similar.js";
import { byId, store } from "./store.js";
import { number, percent, plural, visible } from "./text.js";

export function showProgress() {
  const { fit, labelled, photos } = store.server;
  byId("labelled").textContent = `${number(labelled)} of ${plural(photos, "photo")} labelled`;
  for (const id of ["accuracy", "more-random", "certain", "fit"]) byId(id).hidden = !fit;
  if (!fit) return;
  showAccuracy(fit);
  byId("certain").textContent = fit.certain
    ? `${percent(fit.certain.share)} of the archive certain at ${percent(fit.certain.precision)} precision`
    : `nothing certain at ${percent(fit.wanted_precision)} precision yet`;
  byId("certain").hidden = !fit.certain && fit.accuracy === null; // which says already that more photos are needed
  setText("fit", fit.running ? "fitting…" : fit.error || (fit.number ? `fitted to ${plural(fit.labels, "label")}` : ""));
  byId("fit").title = visible(fit.step ?? "");
  byId("fit").classList.toggle("running", Boolean(fit.running));
  byId("fit").classList.toggle("failed", Boolean(fit.error));
  byId("fit").classList.toggle("idle", !fit.running && !fit.error);
}

function showAccuracy({ accuracy, number: fits, random_needed: needed }) {
  byId("more-random").hidden = accuracy !== null || !("groups" in store.server.views);
  byId("more-random").textContent = needed ? `label ${number(needed)} more random photos` : "label random photos"; // 0 before the first fit
  if (accuracy === null) {
    byId("accuracy").textContent = byId("more-random").hidden && needed ? `accuracy not known yet: ${number(needed)} more random photos` : "accuracy not known yet:";
    return;
  }
  const [low, high] = accuracy.interval95;
  byId("accuracy").textContent = `accuracy ${percent(accuracy.value)} (${percent(low)} to ${percent(high)})`;
  byId("accuracy").title = `Cross-validated on ${plural(accuracy.photos, "random photo")}, with its 95% confidence interval; fit ${number(fits)}`;
}

// Screen readers say the text of a status again whenever it is set.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

byId("more-random").addEventListener("click", () => { showRandom(); focusGrid(); });

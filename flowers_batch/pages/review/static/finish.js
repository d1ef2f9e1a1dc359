// The dialog in which a person finishes: a model, the predictions of the archive, and a report of them.

import { request } from "./api.js";
import { showError } from "./messages.js";
import { allSent } from "./labelling.js";
import { byId, store } from "./store.js";
import { plural, visible } from "./text.js";

const POLL_MILLISECONDS = 500;
const dialog = byId("finish");

byId("finish-button").addEventListener("click", async () => {
  await allSent();
  store.server = await request("state").catch((error) => { showError(error.message); return store.server; });
  const { commands, labelled, photos, training_unavailable: unavailable } = store.server, isPossible = commands.length > 0;
  byId("finish-text").textContent = isPossible
    ? `A classifier is trained on your ${plural(labelled, "label")} and labels all ${plural(photos, "photo")} of the archive. No photo is read again.`
    : `Finishing is not possible here: ${unavailable}`;
  byId("finish-commands").textContent = commands.join("\n");
  byId("finish-commands-part").hidden = !isPossible;
  byId("finish-start").disabled = !isPossible;
  dialog.showModal();
  watch();
});

byId("finish-start").addEventListener("click", async () => {
  byId("finish-result").hidden = true;
  await request("finish", {}).then(watch, (error) => { byId("finish-step").textContent = error.message; });
});

async function watch() {
  let status;
  try {
    status = await request("finish");
  } catch (error) {
    byId("finish-step").textContent = error.message;
    if (dialog.open) setTimeout(watch, POLL_MILLISECONDS); // it goes on without this page
    return;
  }
  const isRunning = status.state === "running";
  byId("finish-start").disabled = isRunning || !store.server.commands.length;
  byId("finish-start").textContent = status.state === "done" ? "Finish again" : "Finish now";
  byId("finish-bar").hidden = !isRunning;
  byId("finish-step").textContent = isRunning ? visible(status.step) : status.error ?? "";
  byId("finish-result").hidden = status.state !== "done";
  if (status.state === "done") showResult(status.result);
  if (isRunning && dialog.open) setTimeout(watch, POLL_MILLISECONDS);
}

function showResult({ model, predictions, report, tag }) {
  const texts = { "finish-model": model, "finish-predictions": predictions, "finish-report": report, "finish-tag": tag };
  for (const [id, text] of Object.entries(texts)) byId(id).textContent = visible(text);
}

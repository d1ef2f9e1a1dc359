// The dialog in which a person who reviews predictions trains again from the labels given.

import { request } from "./api.js";
import { allSent } from "./labelling.js";
import { showError } from "./messages.js";
import { byId, store } from "./store.js";
import { number, percent, visible } from "./text.js";

const POLL_MILLISECONDS = 500;

byId("train-again").addEventListener("click", async () => {
  await allSent();
  store.server = await request("state").catch((error) => { showError(error.message); return store.server; });
  const { commands, labelled, labels_file: file, training_unavailable: unavailable } = store.server;
  const isPossible = commands.length > 0;
  byId("training-text").textContent = isPossible
    ? `The classifier is trained on all labels. Those in ${visible(file)} (${number(labelled)}) take precedence over earlier ones.`
    : `Training is not possible here: ${unavailable}`;
  byId("commands").textContent = commands.join("\n");
  byId("commands-part").hidden = !isPossible;
  byId("train").disabled = !isPossible;
  byId("training").showModal();
  watch();
});

byId("train").addEventListener("click", async () => {
  byId("training-result").hidden = true;
  await request("train", {}).then(watch, (error) => { byId("training-step").textContent = error.message; });
});

async function watch() {
  const status = await request("train").catch((error) => ({ state: "failed", error: error.message }));
  const isRunning = status.state === "running";
  byId("train").disabled = isRunning || !store.server.commands.length;
  byId("training-step").textContent = isRunning ? `Training: ${status.step}` : status.error ?? "";
  byId("training-result").hidden = status.state !== "done";
  if (status.state === "done") showResult(status.result);
  if (isRunning && byId("training").open) setTimeout(watch, POLL_MILLISECONDS);
}

function showResult(result) {
  byId("before").textContent = result.before === null ? "not known" : percent(result.before, 1);
  byId("after").textContent = result.after === null ? "not known" : percent(result.after, 1);
  const [low, high] = result.after_interval95 ?? [0, 1];
  const unused = result.unknown_paths ? ` ${number(result.unknown_paths)} labels belong to photos without a code, and were not used.` : "";
  byId("training-note").textContent = `Accuracy by the current labels on ${number(result.photos)} photos that neither classifier was trained on `
    + `(95% confidence interval after: ${percent(low, 1)} to ${percent(high, 1)}). The new classifier is in ${visible(result.model)}.${unused}`;
}

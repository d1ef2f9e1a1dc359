// The review page: a window onto a long list of photos, and labels that the server has on disk before they are shown as saved.

const KEYS = [..."1234567890abcdefghijklmopqrstvwyz"]; // n, u and x do something else
const WIDTH = 168; // pixels that a photo has at least
const BELOW = 58; // pixels for what is written below a photo
const SPARE = 2; // lines of photos that are drawn beyond the edges
const PART = 200; // photos that are asked for at once
const MARKS = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const AT_ONCE = 4; // pictures that are fetched, so that a label always finds a way

const at = (id) => document.getElementById(id);
const grid = at("grid"), spacer = at("spacer");
let state; // what the server says besides photos
let rows = []; // of the view, in order
let suggested = {}; // by row: label and probability, of labels that look wrong
let changes = []; // rows of each change, so that undoing one moves there at once
let wanted = []; // elements whose picture is to be fetched, the latest last
let loading = 0;
let several = false; // whether a click adds to what is selected
let photos = new Map(); // by row
let asked = new Set(); // parts that were asked for
let drawn = new Map(); // elements by position
let here = 0; // the position that keys act on
let from = 0; // where a range of selected photos begins
let selected = new Set(); // positions
let columns = 1, size = WIDTH;
let queue = Promise.resolve(); // changes go to the server one after the other
let waiting = 0;
let turn = 0; // of views: answers for an earlier one are dropped

// A name is text whatever is in it: characters that would not be seen, or would turn others around, are spelt out.
const text = (name) => String(name).replace(MARKS, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("The server does not answer: start the review again. Nothing that was shown as saved is lost.");
  }
  const found = await answer.json().catch(() => ({ error: "The server failed." }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function warn(message) {
  at("error").textContent = message;
  at("error").hidden = !message;
}

async function begin() {
  state = await ask("state");
  document.title = `Review ${text(state.title.split("/").filter(Boolean).pop() ?? "")}`;
  for (const [name, words] of Object.entries(state.views)) at("view").append(new Option(words, name));
  at("notice").hidden = !state.random;
  at("notice").textContent = `The network's weights are ${state.random}, never trained on photos: its labels mean nothing.`;
  showClasses();
  showSaved();
  await open();
  grid.focus();
}

function showClasses() {
  const chosen = at("class").value;
  at("classes").replaceChildren(...state.classes.map((name, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = number ? -1 : 0;
    const key = document.createElement("kbd");
    key.textContent = KEYS[number] ?? "·";
    button.append(key, text(name));
    button.title = text(name);
    button.addEventListener("click", () => { label(name); grid.focus(); });
    return button;
  }));
  const options = () => state.classes.map((name) => new Option(text(name), name));
  at("class").replaceChildren(...options());
  if (state.classes.includes(chosen)) at("class").value = chosen;
  at("names").replaceChildren(...options());
}

function showSaved() {
  const name = state.file.split("/").pop();
  at("saved").textContent = waiting ? "saving…" : `${state.labelled.toLocaleString("en")} labels in ${text(name)}`;
  at("saved").title = text(state.file);
}

async function open() {
  const name = at("view").value, mine = ++turn;
  at("which").hidden = name !== "class";
  at("count").textContent = "looking…";
  let found = { rows: [], total: 0 };
  try {
    await queue;
    found = await ask(`view?${new URLSearchParams({ name, label: at("class").value })}`);
    if (mine === turn) warn("");
  } catch (error) {
    if (mine === turn) warn(error.message);
  }
  if (mine !== turn) return;
  rows = found.rows;
  suggested = found.suggested ?? {};
  photos = new Map();
  asked = new Set();
  for (const element of drawn.values()) element.remove();
  drawn = new Map();
  here = from = 0;
  selected = new Set(rows.length ? [0] : []);
  const first = rows.length < found.total ? `the first ${rows.length.toLocaleString("en")} of ` : "";
  at("count").textContent = `${first}${found.total.toLocaleString("en")} photo${found.total === 1 ? "" : "s"}`;
  at("empty").hidden = rows.length > 0;
  at("empty").textContent = "There are no photos here.";
  grid.scrollTop = 0;
  measure();
}

// Of all photos only those are in the page that can be seen, and a few lines more.
function measure() {
  const width = spacer.clientWidth;
  columns = Math.max(2, Math.floor(width / WIDTH));
  size = Math.floor(width / columns);
  spacer.style.height = `${Math.ceil(rows.length / columns) * (size + BELOW)}px`;
  for (const [position, element] of drawn) place(position, element);
  draw();
}

function place(position, element) {
  element.style.width = `${size}px`;
  element.style.height = `${size + BELOW}px`;
  element.style.transform = `translate(${(position % columns) * size}px, ${Math.floor(position / columns) * (size + BELOW)}px)`;
}

function draw() {
  const line = size + BELOW;
  const first = Math.max(0, (Math.floor(grid.scrollTop / line) - SPARE) * columns);
  const last = Math.min(rows.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / line) + SPARE) * columns);
  for (const [position, element] of drawn) {
    if ((position >= first && position < last) || position === here) continue;
    element.querySelector("img")?.removeAttribute("src"); // so that it is not waited for
    element.remove();
    drawn.delete(position);
  }
  for (let position = first; position < last; position++) {
    if (!drawn.has(position)) drawn.set(position, spacer.appendChild(cell(position)));
  }
  if (rows.length && !drawn.has(here)) drawn.set(here, spacer.appendChild(cell(here)));
  for (let part = Math.floor(first / PART); part * PART < last; part++) fetchPart(part);
}

async function fetchPart(part) {
  if (asked.has(part)) return;
  asked.add(part);
  const mine = turn;
  try {
    const found = await ask("photos", { rows: rows.slice(part * PART, (part + 1) * PART) });
    if (mine !== turn) return;
    for (const photo of found) if (!photos.get(photo.row)?.saving) photos.set(photo.row, photo);
    for (const [position, element] of drawn) if (Math.floor(position / PART) === part) fill(position, element);
    if (Math.floor(here / PART) === part) tell();
  } catch (error) {
    asked.delete(part);
    if (mine === turn) warn(error.message);
  }
}

function cell(position) {
  const element = document.createElement("div");
  element.className = "photo";
  element.id = `photo-${position}`;
  element.setAttribute("role", "option");
  element.setAttribute("aria-setsize", rows.length);
  element.setAttribute("aria-posinset", position + 1);
  element.append(document.createElement("img"), document.createElement("b"), document.createElement("small"), document.createElement("small"));
  const image = element.querySelector("img");
  image.alt = "";
  image.draggable = false;
  for (const end of ["load", "error"]) image.addEventListener(end, () => { loading--; fetchPictures(); });
  image.addEventListener("error", () => gone(position, image));
  element.addEventListener("click", (event) => click(position, event));
  place(position, element);
  fill(position, element);
  return element;
}

// The latest first; what was scrolled past is not fetched.
function fetchPictures() {
  while (loading < AT_ONCE && wanted.length) {
    const [element, address] = wanted.pop();
    if (!element.isConnected || element.src) continue;
    loading++;
    element.src = address;
  }
}

async function gone(position, image) {
  const photo = photos.get(rows[position]);
  if (!photo || !image.isConnected) return;
  const box = document.createElement("div");
  box.className = "gone";
  box.textContent = photo.status === "failed" ? `${photo.reason}: ${text(photo.message)}` : "not readable now";
  image.replaceWith(box);
}

function fill(position, element) {
  const photo = photos.get(rows[position]);
  element.setAttribute("aria-selected", selected.has(position));
  element.classList.toggle("here", position === here);
  if (!photo) return;
  const image = element.querySelector("img"), [, bold, first, second] = element.children;
  if (image && photo.status === "failed") gone(position, image);
  else if (image && !image.src && !image.dataset.wanted) {
    image.dataset.wanted = "1";
    wanted.push([image, `thumbnail/${photo.row}`]);
    fetchPictures();
  }
  element.classList.toggle("mine", photo.label !== null);
  element.classList.toggle("saving", Boolean(photo.saving));
  bold.textContent = text(shown(photo) ?? "failed");
  first.textContent = sentence(photo);
  second.textContent = text(photo.path);
  element.title = text(photo.path);
}

// What space accepts: a label given here, else what is suggested instead of a wrong one, else the prediction.
const shown = (photo) => photo.label ?? suggested[photo.row]?.[0] ?? photo.prediction;

function sentence(photo) {
  if (photo.prediction === null) return text(photo.reason);
  if (suggested[photo.row] && photo.label === null) return `labelled ${text(photo.given)}; ${percent(suggested[photo.row][1])} sure it is this`;
  const sure = `${percent(photo.probability)} sure`;
  const told = photo.label !== null && photo.label !== photo.prediction ? `was ${text(photo.prediction)}, ${sure}` : sure;
  return photo.given !== null && photo.label === null && photo.given !== photo.prediction ? `${sure}; labelled ${text(photo.given)}` : told;
}

function redraw() {
  for (const [position, element] of drawn) fill(position, element);
  if (rows.length) grid.setAttribute("aria-activedescendant", `photo-${here}`);
  else grid.removeAttribute("aria-activedescendant");
  tell();
}

function tell() {
  const photo = photos.get(rows[here]);
  const place = rows.length ? `${(here + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
  const more = selected.size > 1 ? `, ${selected.size.toLocaleString("en")} selected` : "";
  at("status").textContent = photo ? `${place}${more}: ${text(photo.path)}, ${text(shown(photo) ?? photo.reason)}` : place;
}

function move(to, extend) {
  if (!rows.length) return;
  here = Math.max(0, Math.min(rows.length - 1, to));
  if (extend) {
    selected = new Set();
    for (let position = Math.min(from, here); position <= Math.max(from, here); position++) selected.add(position);
  } else {
    from = here;
    selected = new Set([here]);
  }
  const line = size + BELOW, top = Math.floor(here / columns) * line;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + line > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + line - grid.clientHeight + 8;
  draw();
  redraw();
}

function toggle(position) {
  here = from = position;
  if (!selected.delete(position)) selected.add(position);
  redraw();
}

function click(position, event) {
  grid.focus({ preventScroll: true });
  if (event.shiftKey) move(position, true);
  else if (several || event.ctrlKey || event.metaKey) toggle(position);
  else move(position, false);
}

// A label of null accepts what each photo is said to be. Photos that were not seen yet are labelled like all others.
function label(name) {
  const chosen = selected.size ? [...selected].sort((a, b) => a - b) : [here];
  const mine = chosen.map((position) => rows[position]).filter((row) => row !== undefined && photos.get(row)?.status !== "failed");
  if (!mine.length) return;
  const labels = name ?? mine.map((row) => (photos.has(row) ? shown(photos.get(row)) : suggested[row]?.[0] ?? null));
  for (const row of mine) {
    const photo = photos.get(row);
    if (photo) Object.assign(photo, { label: name ?? shown(photo), saving: true });
  }
  changes.push(mine);
  change("label", { rows: mine, labels }, mine);
  move(chosen[chosen.length - 1] + 1, false);
}

function undo() {
  const position = rows.indexOf(changes.pop()?.[0]);
  if (position >= 0) move(position, false);
  change("undo", {});
}

function change(path, body, mine = []) {
  waiting++;
  showSaved();
  queue = queue.then(async () => {
    try {
      const found = await ask(path, body);
      state.labelled = found.labelled;
      for (const { row, label } of found.labels) {
        const photo = photos.get(row);
        if (photo) Object.assign(photo, { label, saving: false });
      }
      if (found.classes.length !== state.classes.length) {
        state.classes = found.classes;
        showClasses();
      }
      const left = found.skipped ? `${found.skipped.toLocaleString("en")} photos failed, and got no label.` : "";
      warn(path === "undo" && !found.labels.length ? "There is nothing to undo since this review began." : left);
    } catch (error) {
      warn(error.message);
      for (const row of mine) Object.assign(photos.get(row) ?? {}, { label: null, saving: false });
      asked = new Set();
      draw();
    }
    waiting--;
    showSaved();
    redraw();
  });
}

grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
new ResizeObserver(() => { measure(); redraw(); }).observe(grid);
at("undo").addEventListener("click", () => { undo(); grid.focus(); });
at("several").addEventListener("click", () => {
  several = !several;
  at("several").setAttribute("aria-pressed", several);
});
for (const name of ["view", "class"]) {
  // With a pointer one is done when something is chosen; by keys one may go on choosing until Enter.
  let pointed = false;
  at(name).addEventListener("pointerdown", () => { pointed = true; });
  at(name).addEventListener("keydown", (event) => { pointed = false; if (event.key === "Enter") grid.focus(); });
  at(name).addEventListener("change", () => open().then(() => { redraw(); if (pointed) grid.focus(); }));
}
window.addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); });
at("accept").addEventListener("click", () => { label(null); grid.focus(); });
at("help-button").addEventListener("click", () => at("help").showModal());
at("classes").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = [...at("classes").children];
  all[(all.indexOf(document.activeElement) + step + all.length) % all.length]?.focus();
  event.preventDefault();
});
at("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value.trim();
  if (name) label(name);
  at("name").value = "";
  grid.focus();
});
at("name").addEventListener("keydown", (event) => { if (event.key === "Escape") grid.focus(); });

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor(grid.clientHeight / (size + BELOW))) * columns;
  const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns,
    PageUp: here - page, PageDown: here + page, Home: 0, End: rows.length - 1 };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const acts = { " ": () => label(null), u: undo, x: () => toggle(here), Escape: () => move(here, false),
    n: () => at("name").focus(), "?": () => at("help").showModal() };
  const name = state?.classes[KEYS.indexOf(key)];
  if (event.key in moves) move(moves[event.key] < 0 && event.key === "ArrowUp" ? here : moves[event.key], event.shiftKey);
  else if (event.repeat && (key in acts || name !== undefined)); // a key that is held says nothing more
  else if (key in acts) acts[key]();
  else if (name !== undefined) label(name);
  else return;
  event.preventDefault();
});

at("finish").addEventListener("click", async () => {
  await queue;
  state = await ask("state").catch((error) => { warn(error.message); return state; });
  const can = state.commands.length > 0;
  at("training-text").textContent = can
    ? `A classifier is trained on all labels, with ${state.labelled.toLocaleString("en")} from ${text(state.file)} counting before the others.`
    : `Nothing can be trained here: ${state.why_not}`;
  at("commands").textContent = state.commands.join("\n");
  at("commands-part").hidden = !can;
  at("train").disabled = !can;
  at("training").showModal();
  watch();
});

at("train").addEventListener("click", async () => {
  at("training-result").hidden = true;
  await ask("train", {}).then(watch, (error) => { at("training-step").textContent = error.message; });
});

async function watch() {
  const training = await ask("train").catch((error) => ({ state: "failed", error: error.message }));
  const running = training.state === "running";
  at("train").disabled = running || !state.commands.length;
  at("training-step").textContent = running ? `Training: ${training.step}` : training.error ?? "";
  at("training-result").hidden = training.state !== "done";
  if (training.state === "done") showResult(training.result);
  if (running && at("training").open) setTimeout(watch, 500);
}

function showResult(result) {
  at("before").textContent = result.before === null ? "not known" : percent(result.before, 1);
  at("after").textContent = result.after === null ? "not known" : percent(result.after, 1);
  const [low, high] = result.after_interval95 ?? [0, 1];
  const left = result.unknown_paths ? ` ${result.unknown_paths} labels are for photos without a code, and were left out.` : "";
  at("training-note").textContent = `Accuracy on ${result.photos} photos that neither was trained on, by the labels that they have now `
    + `(95% interval after: ${percent(low, 1)} to ${percent(high, 1)}). The new classifier is in ${text(result.model)}.${left}`;
}

begin().then(redraw, (error) => warn(error.message));

// The heading of a section in the grid. Screen readers get its content from the bar of the group instead.

import { photoAt, RANDOM, sectionAt, store } from "./store.js";
import { number, plural, visible } from "./text.js";

export function createHeading(index) {
  const heading = document.createElement("div");
  heading.className = "heading";
  heading.dataset.section = index;
  heading.setAttribute("aria-hidden", "true");
  heading.append(document.createElement("b"), document.createElement("span"));
  return heading;
}

export function fillHeading(index, heading) {
  const section = store.sections[index], [title, labels] = heading.children;
  heading.classList.toggle("current", section === sectionAt(store.current));
  title.textContent = section.kind === "group" ? `Group ${section.number}` : titleOf(section);
  labels.textContent = labelsOf(section);
}

export function titleOf(section) {
  if (section.kind === RANDOM) return "Random photo";
  if (section.kind === "duplicates") return plural(section.end - section.start, "near-duplicate");
  return `Group ${section.number}, ${plural(section.size, "photo")}`;
}

// The labels that photos of a section have, the most frequent first: "✓ 18 daisy, 2 rose".
function labelsOf(section) {
  const counts = new Map();
  for (let position = section.start; position < section.end; position++) {
    const label = photoAt(position)?.label;
    if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const found = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${number(count)} ${visible(label)}`);
  return found.length ? `✓ ${found.join(", ")}` : "";
}

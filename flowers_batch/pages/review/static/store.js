// State that the modules of the page share.

export const store = {
  server: null, // the latest answer of `api/state`
  rows: [], // rows of the view, in order; a position is an index into them
  sections: [], // of a view in groups, in order: start, end, kind and what groups.js keeps; empty in other views
  isDense: false, // whether groups are so large that their tiles are smaller than elsewhere
  chosen: "view", // how photos of this view were chosen, as the labels file calls it
  random: new Set(), // rows of the view that were drawn at random
  suggested: {}, // by row, of possible label errors: label and probability
  similarities: new Map(), // by row, of similar photos: the cosine
  photos: new Map(), // descriptions by row
  current: 0, // the position that keys act on
  selected: new Set(), // positions
  touched: new Map(), // by row: whether a person took it into the selection of its group, or out
  isPicked: false, // whether the selection is a part of its group that the person picked
  view: 0, // counts the views opened: answers for an earlier one are dropped
  unsaved: 0, // changes that the server has not confirmed
};

export const RANDOM = "random"; // a section of one photo that was drawn at random, and how such a photo was chosen

export const byId = (id) => document.getElementById(id);

export const photoAt = (position) => store.photos.get(store.rows[position]);

// What space accepts: the label given here, else the one suggested for a possible label error, else the prediction.
export const shownLabel = (photo) => photo.label ?? store.suggested[photo.row]?.[0] ?? photo.prediction;

// The section of a position; undefined in a view without groups.
export function sectionAt(position) {
  const { sections } = store;
  let low = 0, high = sections.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sections[middle].start <= position) low = middle;
    else high = middle;
  }
  return sections[low];
}

export const isRandom = (position) => store.random.has(store.rows[position]) || sectionAt(position)?.kind === RANDOM;

// How the photo at a position was chosen, for the labels file.
export const chosenAt = (position) => (isRandom(position) ? RANDOM : store.chosen);

// State that the modules of the page share.

export const store = {
  server: null, // the latest answer of `api/state`
  rows: [], // rows of the view, in order; a position is an index into them
  suggested: {}, // by row, of possible label errors: label and probability
  photos: new Map(), // descriptions by row
  current: 0, // the position that keys act on
  selected: new Set(), // positions
  view: 0, // counts the views opened: answers for an earlier one are dropped
  unsaved: 0, // changes that the server has not confirmed
};

export const byId = (id) => document.getElementById(id);

export const photoAt = (position) => store.photos.get(store.rows[position]);

// What space accepts: the label given here, else the one suggested for a possible label error, else the prediction.
export const shownLabel = (photo) => photo.label ?? store.suggested[photo.row]?.[0] ?? photo.prediction;

// What survives a reload of the page: in its address, never a name of a photo, folder or class, since browsers keep addresses.

export const remembered = (name) => new URLSearchParams(location.hash.slice(1)).get(name);

export function remember(name, value) {
  const all = new URLSearchParams(location.hash.slice(1));
  all.set(name, value);
  history.replaceState(null, "", `#${all}`);
}

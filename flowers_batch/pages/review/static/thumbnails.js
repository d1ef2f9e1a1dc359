// Fetches thumbnails, the ones requested last first; those scrolled out of sight are not fetched.

const AT_ONCE = 4; // so that a connection is always free for labels

const waiting = []; // pairs of an <img> and its address, the latest last
const loading = new Set(); // <img>

export function fetchThumbnail(image, address) {
  for (const end of ["load", "error"]) image.addEventListener(end, () => ended(image), { once: true });
  waiting.push([image, address]);
  fetchNext();
}

export function cancelThumbnail(image) {
  image.removeAttribute("src");
  ended(image);
}

function ended(image) {
  if (loading.delete(image)) fetchNext();
}

function fetchNext() {
  while (loading.size < AT_ONCE && waiting.length) {
    const [image, address] = waiting.pop();
    if (!image.isConnected || image.src) continue;
    loading.add(image);
    image.src = address;
  }
}

// Requests to the server of the review.

const RETRIES = 30; // of a request that the server had no time for

const seconds = (count) => new Promise((resolve) => setTimeout(resolve, 1000 * count));

// Fetches an address, again and again while the server has too much to do.
export async function fetchPatiently(address, options) {
  for (let retries = 0; ; retries++) {
    const response = await fetch(address, options);
    if (response.status !== 503 || retries === RETRIES) return response;
    await seconds((Number(response.headers.get("Retry-After")) || 1) * (0.5 + Math.random()));
  }
}

// Sends a request and returns its answer; with a body it is a POST. Throws an Error with a sentence to show.
export async function request(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetchPatiently(`api/${path}`, options);
  } catch {
    throw new Error("The server does not respond: restart the review. Nothing that was shown as saved is lost.");
  }
  const answer = await response.json().catch(() => ({ error: "The server failed." }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

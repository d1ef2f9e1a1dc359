// Requests to the server of the review.

// Sends a request and returns its answer; with a body it is a POST. Throws an Error with a sentence to show.
export async function request(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("The server does not respond: restart the review. Nothing that was shown as saved is lost.");
  }
  const answer = await response.json().catch(() => ({ error: "The server failed." }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

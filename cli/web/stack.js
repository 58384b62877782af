/** The requests to `streamer web`. */

/** Sends a request, and returns the object of the response. */
const ask = async (path, options) => {
  let response;
  try {
    response = await fetch(path, options);
  } catch (cause) {
    throw new Error("`streamer web` does not answer: start it again, and open its new page", { cause });
  }
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
};

const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** Returns the URL of the stack's WebSocket API. */
export const websocketUrl = async () => (await ask("/stack")).websocket_url;

/** Returns a token for a user. */
export const fetchToken = async (user) => (await post("/token", user)).token;

/** Publishes a message for a user, which is kept for devices that are away. */
export const sendMessage = (user, text) => post("/message", { ...user, text, keep: true });

/** Kills the processes of the delivery worker, and returns their number. */
export const killWorker = async () => (await post("/worker/kill", {})).killed;

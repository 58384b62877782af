/**
 * The rules of the client: from events, the time and random numbers to effects. The same inputs have the same effects,
 * and nothing but the core's own state changes. The shell in `index.js` has the sockets, the timer and the storage.
 *
 * Up to two sockets are open: `socket`, on which frames are sent, and during a rotation `old`, which still delivers.
 * `next` is the socket that is being opened.
 */

import { isFrame, isId } from "./frames.js";
import { IDLE, JITTER, LIFE, MAX_REFUSED, OPEN_TIME, PONG_TIME, SECOND, STABLE } from "./limits.js";
import { isEnd, isStale, remember } from "./requests.js";
import { retryDelay, rotationAt } from "./schedule.js";
import { createStream } from "./stream.js";

/**
 * Creates the core of a client.
 * @param {"oldest" | "now" | undefined} [from] the beginning in the mailbox for a client without a position. Without it,
 *   there is no mailbox
 */
export const createCore = (from) => {
  /** @type {import("./types.js").Status} */
  let status = "idle";
  // `idle` is the idle time, and `jitter` the random part of the time of a rotation.
  let now = 0, socket = 0, old = 0, next = 0, last = 0, openedAt = 0, idle = 0, jitter = 0, attempts = 0, refused = 0;
  let openBy = Infinity, retryAt = Infinity, rotateAt = Infinity, pongBy = Infinity, idleAt = Infinity;
  /** Whether the API has the route of pings. The mailbox and pings have their routes together. */
  let hasPongs = false;
  /** The ids of the last messages that were not kept. */
  const seen = new Map();
  /** The progress of the last requests. */
  const shown = new Map();
  /** Requests that have not ended, and the text to send. @type {Map<string, { text?: string, resend?: boolean }>} */
  const jobs = new Map();
  let random = Math.random;
  /** @type {import("./types.js").Effect[]} */
  let out = [];

  /** @param {import("./types.js").Effect} effect */
  const emit = (...effect) => void out.push(effect);

  /** @type {(state: import("./types.js").Status, reason?: string, retryIn?: number) => void} */
  const setStatus = (state, reason, retryIn) => {
    if (status === state && !reason) return;
    status = state;
    emit("state", { state, reason, retryIn });
  };

  const attempt = () => {
    next = ++last;
    openBy = now + OPEN_TIME;
    retryAt = rotateAt = Infinity;
    if (!socket) setStatus("connecting");
    emit("open", next, refused >= MAX_REFUSED);
    refused %= MAX_REFUSED;
  };

  /** Schedules the next attempt. @param {string} reason */
  const retry = (reason) => {
    const delay = retryDelay(attempts++, random);
    if (socket) rotateAt = now + delay;
    else {
      retryAt = now + delay;
      setStatus("waiting", reason, delay);
    }
  };

  /** @param {number} id */
  const close = (id) => id && emit("close", id);

  /** Closes the old socket after a rotation. */
  const drain = () => {
    close(old);
    old = 0;
  };

  /** Ends the life of the newest socket. One that was stable resets the backoff. @param {number} successor */
  const succeed = (successor) => {
    if (now - openedAt >= STABLE) attempts = 0;
    pongBy = Infinity;
    socket = successor;
    old = 0;
    run(socket ? "opened" : "closed");
  };

  /** Closes all open sockets. */
  const abandon = () => {
    drain();
    close(socket);
    succeed(0);
  };

  /** Replaces a dead socket at once. */
  const renew = () => {
    abandon();
    if (next) setStatus("connecting");
    else attempt();
  };

  /** @param {string} text */
  const send = (text) => {
    idleAt = now + idle;
    emit("send", socket, text);
  };

  /** @type {(type: string, fields?: object) => void} */
  const sendFrame = (type, fields) => send(JSON.stringify({ type, action: type, ...fields }));

  const ping = () => {
    if (pongBy < Infinity) return;
    // Without the route, no ping is answered. That says nothing about the socket.
    if (hasPongs) pongBy = now + PONG_TIME;
    sendFrame("streamer.ping");
  };

  /** Sends a request, unless it may have arrived. @param {{ text?: string, resend?: boolean }} job */
  const sendRequest = (job) => {
    if (!socket || !job.text) return;
    send(job.text);
    if (!job.resend) job.text = "";
  };

  /** Gives an answer to its request, if one waits for it. @param {any} payload */
  const answer = (payload) => {
    const end = isEnd(payload);
    const job = end !== undefined && jobs.get(payload.request_id);
    if (job) {
      job.text = "";
      if (!isStale(shown, payload)) {
        if (end) jobs.delete(payload.request_id);
        emit("answer", payload);
      }
    }
    return !!job;
  };

  const stream = createStream(from, {
    send: sendFrame,
    registered: drain,
    reconnect() {
      abandon();
      if (!next) retry("mailbox");
    },
    unsupported() {
      drain();
      setStatus(status, "unsupported");
    },
    answer,
    deliver: (message) => answer(message.data) || isStale(shown, message.data) || emit("deliver", message),
    emit(effect, value) {
      emit(effect, value);
      if (effect === "caughtUp") setStatus(effect);
      else if (effect === "gap" && !value.count && status === "caughtUp") setStatus("connected");
    },
  });

  /** @type {(event: string, ...values: any[]) => void} */
  const run = (event, ...values) => stream.step(now, event, ...values);

  /** @type {(id: number, text: string) => void} */
  const receive = (id, text) => {
    if (id !== socket && id !== old) return;
    idleAt = now + idle;
    let frame, isOurs;
    try {
      frame = JSON.parse(text);
      isOurs = /^streamer\./.test(frame?.type);
      if (isOurs && !isFrame(frame)) return;
    } catch {
      return;
    }
    hasPongs ||= isOurs;
    if (frame?.type === "streamer.pong") pongBy = Infinity;
    else if (isOurs) {
      run("frame", frame, text.length);
      if (id === socket) limitLife(frame.expires_in);
    } else if (frame?.connectionId && frame.requestId && !frame.type) {
      // API Gateway itself answers. A function that failed may answer the next time; a route that is absent never does.
      if (frame.message !== "Internal server error") run("refused");
      emit("error", { source: "server", error: frame.message });
    } else if (!isId(frame?.id) || !remember(seen, frame.id, true)) {
      if (!answer(frame)) run("payload", frame, text.length);
    }
  };

  /** Rotates before API Gateway ends the connection. @param {number} seconds */
  const limitLife = (seconds) => {
    const at = rotationAt(openedAt, now, seconds, jitter);
    if (at < rotateAt) rotateAt = at;
  };

  /** Checks the socket, or opens one soon. @param {boolean} wasAway whether the machine slept or had no network */
  const check = (wasAway) => {
    if (!socket) retryAt = retryAt < Infinity ? Math.min(retryAt, now + random() * SECOND) : retryAt;
    else if (wasAway && !hasPongs) renew();
    else ping();
  };

  /** @type {Record<string, (...values: any[]) => void>} */
  const events = {
    connect() {
      if (status === "idle") attempt();
    },
    opened(id) {
      if (id !== next) return close(id);
      old = socket;
      socket = next;
      next = refused = 0;
      openBy = pongBy = rotateAt = Infinity;
      openedAt = now;
      idle = IDLE * (0.9 + 0.2 * random());
      idleAt = now + idle;
      jitter = JITTER * random();
      limitLife(LIFE);
      if (!old) setStatus("connected");
      run("opened");
      // Without a page to wait for, the rotation is complete.
      if (!stream.isSupported()) drain();
      jobs.forEach(sendRequest);
    },
    closed(id, reason) {
      if (id === next) {
        next = 0;
        openBy = Infinity;
        if (!reason) refused++;
        retry(reason ?? "refused");
      } else if (id === old) old = 0;
      else if (id === socket) {
        succeed(old);
        if (!next) retry("closed");
        else if (!socket) setStatus("connecting");
      }
    },
    frame: receive,
    send(text) {
      if (socket) send(text);
    },
    request(id, text, resend) {
      const job = { text, resend };
      jobs.set(id, job);
      sendRequest(job);
    },
    cancel: (id) => jobs.delete(id),
    check,
    woken() {
      if (openBy <= now) {
        close(next);
        events.closed(next, "timeout");
      }
      if (!socket) {
        if (retryAt <= now) attempt();
        return;
      }
      if (rotateAt <= now && !next && !old) attempt();
      if (pongBy <= now) return renew();
      if (idleAt <= now) {
        // The sync also finds a last message whose frame was lost.
        idleAt = now + idle;
        if (stream.isSupported()) run("idle");
        else ping();
      }
      run("woken");
    },
    end(state, reason) {
      run("ended");
      abandon();
      close(next);
      next = 0;
      openBy = retryAt = Infinity;
      jobs.clear();
      setStatus(state, reason);
    },
  };

  return {
    /**
     * Handles an event and returns its effects. `at` is in milliseconds, of a clock that does not go back. `randomly`
     * returns numbers from 0 (inclusive) to 1 (exclusive).
     * @type {(at: number, randomly: () => number, ...event: import("./types.js").Event) => typeof out}
     */
    step(at, randomly, event, ...values) {
      now = at;
      random = randomly;
      out = [];
      (events[event] ?? run.bind(null, event))(...values);
      return out;
    },
    /** Returns when the event `woken` is due, `Infinity` if never. */
    wakeAt: () =>
      socket
        ? Math.min(openBy, pongBy, idleAt, stream.wakeAt(), next || old ? Infinity : rotateAt)
        : Math.min(openBy, retryAt),
    status: () => status,
    isOpen: () => !!socket,
    isSupported: stream.isSupported,
    position: stream.position,
  };
};

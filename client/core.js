/**
 * The rules of the client: from events, the time and random numbers to effects. The same inputs have the same effects,
 * and nothing but the core's own state changes. The shell in `index.js` has the sockets, the timer and the storage.
 *
 * Up to two sockets are open: `socket`, on which frames are sent, and during a rotation `old`, which still delivers.
 * `next` is the socket that is being opened.
 */

import { isEnd, isStale, remember } from "./requests.js";
import { createStream, isFrame, isId } from "./stream.js";

/**
 * @typedef {"idle" | "connecting" | "connected" | "caughtUp" | "waiting" | "closed" | "failed"} Status
 * @typedef {import("./stream.js").Effect} Effect
 * @typedef {import("./stream.js").Event} Event
 * @typedef {ReturnType<typeof createCore>} Core
 */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
/** Time for a token and a handshake. */
const OPEN_TIME = 30 * SECOND;
/** Idle time after which a sync or a ping is sent, ± 10 %. API Gateway ends a connection after 10 idle minutes. */
const IDLE = 8 * MINUTE;
const PONG_TIME = 4 * SECOND;
/** Lateness of a timer that shows that the machine was asleep. */
const SLEEP = 30 * SECOND;
/** Time after which an open socket shows that the server can be reached. */
const STABLE = 10 * SECOND;
/** Handshakes that fail in a row before the token is asked for with `refused`. */
const MAX_REFUSED = 3;

/**
 * Creates the core of a client.
 * @param {{ from?: "oldest" | "now" | null, rotate?: boolean, backoff?: { min?: number, max?: number } }} [options]
 *   `from`: the beginning in the mailbox for a client without a position. Without it, there is no mailbox
 */
export function createCore({ from, rotate = true, backoff: { min = SECOND, max = MINUTE } = {} } = {}) {
  /** @type {Status} */
  let status = "idle";
  let [socket, old, next, last] = [0, 0, 0, 0];
  let [openBy, retryAt, rotateAt, pongBy, idleAt] = Array(5).fill(Infinity);
  let openedAt = 0;
  /** The idle time, and the random part of the time of a rotation. */
  let idle = 0;
  let jitter = 0;
  /** Whether the API has the route of pings, and whether it has left one unanswered. */
  let [hasPongs, isDeaf] = [false, false];
  let attempts = 0;
  let refused = 0;
  /** The ids of the last messages that were not kept. */
  const seen = new Map();
  /** The progress of the last requests. */
  const shown = new Map();
  /** Requests that have not ended, by id. @type {Map<string, { text?: string, resend?: boolean, isSent?: boolean }>} */
  const jobs = new Map();
  let now = 0;
  let random = Math.random;
  /** @type {Effect[]} */
  let out = [];

  /** @type {(effect: string, fields?: object) => void} */
  const emit = (effect, fields) => void out.push({ effect, ...fields });

  /** @type {(state: Status, reason?: string, retry_in?: number) => void} */
  function setStatus(state, reason, retry_in) {
    if (status === state && !reason) return;
    status = state;
    emit("state", { state, reason, retry_in });
  }

  function attempt() {
    next = ++last;
    openBy = now + OPEN_TIME;
    retryAt = rotateAt = Infinity;
    if (!socket) setStatus("connecting");
    emit("open", { socket: next, refused: refused >= MAX_REFUSED });
    refused %= MAX_REFUSED;
  }

  /**
   * Schedules the next attempt, with full jitter: API Gateway admits 500 new connections a second for an account.
   * @param {string} reason
   */
  function retry(reason) {
    const delay = random() * Math.min(max, min * 2 ** attempts++);
    if (socket) rotateAt = now + delay;
    else {
      retryAt = now + delay;
      setStatus("waiting", reason, delay);
    }
  }

  /** @param {number} id */
  const close = (id) => id && emit("close", { socket: id });

  /** Closes the old socket after a rotation. */
  function drain() {
    close(old);
    old = 0;
  }

  /** Ends the life of the newest socket. One that was stable resets the backoff. @param {number} successor */
  function succeed(successor) {
    if (now - openedAt >= STABLE) attempts = 0;
    pongBy = Infinity;
    socket = successor;
    old = 0;
    run({ event: socket ? "opened" : "closed" });
  }

  /** Closes all open sockets. */
  function abandon() {
    drain();
    close(socket);
    succeed(0);
  }

  /** Replaces a dead socket at once. */
  function renew() {
    abandon();
    if (next) setStatus("connecting");
    else attempt();
  }

  /** @param {string} text */
  function send(text) {
    idleAt = now + idle;
    emit("send", { socket, text });
  }

  function ping() {
    if (pongBy < Infinity) return;
    pongBy = now + PONG_TIME;
    const type = "streamer.ping";
    send(JSON.stringify({ type, action: type }));
  }

  /** Sends a request, unless it may have arrived. @param {{ text?: string, resend?: boolean, isSent?: boolean }} job */
  function sendRequest(job) {
    if (!socket || !job.text || (job.isSent && !job.resend)) return;
    job.isSent = true;
    send(job.text);
  }

  /** Gives an answer to its request, if one waits for it. @param {any} payload */
  function answer(payload) {
    const end = isEnd(payload);
    const job = jobs.get(payload?.request_id);
    if (end === undefined || !job) return false;
    job.resend = false;
    if (!isStale(shown, payload)) {
      if (end) jobs.delete(payload.request_id);
      emit("answer", { payload });
    }
    return true;
  }

  /** The effects of the stream that are not those of the client. @type {Record<string, (effect: Effect) => unknown>} */
  const translations = {
    send: ({ text }) => send(text),
    registered: drain,
    reconnect() {
      abandon();
      if (!next) retry("mailbox");
    },
    unsupported() {
      drain();
      setStatus(status, "unsupported");
    },
    deliver: (effect) => answer(effect.payload) || isStale(shown, effect.payload) || void out.push(effect),
    caught_up(effect) {
      out.push(effect);
      setStatus("caughtUp");
    },
    gap(effect) {
      if (effect.epoch && !effect.range && status === "caughtUp") setStatus("connected");
      out.push(effect);
    },
  };

  const stream = createStream(
    from,
    (effect) => (translations[effect.effect] ? translations[effect.effect](effect) : void out.push(effect)),
    answer,
  );

  /** @param {Event} event */
  const run = (event) => stream.step(event, now);

  /** @type {(isNewest: boolean, text: string) => void} */
  function receive(isNewest, text) {
    idleAt = now + idle;
    let frame, isOurs;
    try {
      frame = JSON.parse(text);
      isOurs = isId(frame?.type) && frame.type.startsWith("streamer.");
      if (isOurs && frame.type !== "streamer.pong" && !isFrame(frame)) return;
    } catch {
      return;
    }
    // The mailbox and pings have their routes together.
    const isPong = frame?.type === "streamer.pong";
    hasPongs ||= isPong || (isOurs && !!frame.messages);
    if (isNewest && (isPong || !hasPongs)) pongBy = Infinity;
    if (isPong) return;
    if (isOurs) {
      run({ event: "frame", frame, bytes: text.length });
      if (isNewest) limitLife(frame.expires_in);
    } else if (frame?.connectionId && frame.requestId && !frame.type) {
      // API Gateway itself answers. A function that failed may answer the next time; a route that is absent never does.
      if (frame.message !== "Internal server error" && stream.isAsking()) run({ event: "refused" });
      else emit("fault", { message: frame.message });
    } else if (!isId(frame?.id) || !remember(seen, frame.id, true)) {
      if (!answer(frame)) run({ event: "payload", payload: frame, bytes: text.length });
    }
  }

  /** Rotates before API Gateway ends the connection. @param {number} seconds */
  function limitLife(seconds) {
    const at = now + seconds * SECOND - 5 * MINUTE - jitter;
    // Whatever the server's clock says, a connection has a minute.
    if (rotate && at < rotateAt && !next && !old) rotateAt = Math.max(openedAt + MINUTE, at);
  }

  /**
   * Checks that the socket is alive, or tries soon to open one.
   * @param {boolean} wasAway whether the machine was asleep or without a network
   */
  function check(wasAway) {
    if (!socket) retryAt = retryAt < Infinity ? Math.min(retryAt, now + random() * min) : retryAt;
    else if (wasAway && isDeaf && !hasPongs) renew();
    else ping();
  }

  /** @type {(state: Status, reason?: string) => void} */
  function end(state, reason) {
    abandon();
    close(next);
    next = 0;
    openBy = retryAt = Infinity;
    jobs.clear();
    setStatus(state, reason);
  }

  /** @type {Record<string, (event: any) => void>} */
  const events = {
    restored: run,
    handled: run,
    connect() {
      if (status === "idle" || status === "failed") attempt();
    },
    opened({ socket: id }) {
      if (id !== next) return close(id);
      old = socket;
      socket = next;
      next = refused = 0;
      openBy = pongBy = Infinity;
      openedAt = now;
      idle = IDLE * (0.9 + 0.2 * random());
      idleAt = now + idle;
      jitter = 15 * MINUTE * random();
      rotateAt = rotate ? now + 100 * MINUTE + jitter : Infinity;
      if (!old) setStatus("connected");
      run({ event: "opened" });
      // Without a page to wait for, the rotation is complete.
      if (!stream.isSupported()) drain();
      jobs.forEach(sendRequest);
    },
    closed({ socket: id, reason }) {
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
    frame({ socket: id, text }) {
      if (id === socket || id === old) receive(id === socket, text);
    },
    send: ({ text }) => socket && send(text),
    request({ id, text, resend }) {
      const job = { text, resend };
      jobs.set(id, job);
      sendRequest(job);
    },
    cancel: ({ id }) => jobs.delete(id),
    check: ({ wasAway }) => check(wasAway),
    woken({ late }) {
      if (late > SLEEP) check(true);
      if (openBy <= now) {
        close(next);
        events.closed({ socket: next, reason: "timeout" });
      }
      if (!socket) {
        if (retryAt <= now) attempt();
        return;
      }
      if (rotateAt <= now && !next && !old) attempt();
      if (pongBy <= now) {
        pongBy = Infinity;
        // Without the route `streamer.ping` no ping is answered, so that the second silence proves nothing.
        if (hasPongs || !isDeaf) {
          isDeaf = true;
          return renew();
        }
      }
      if (idleAt <= now) {
        // The sync also finds a last message whose frame was lost.
        idleAt = now + idle;
        if (from) run({ event: "idle" });
        else ping();
      }
      run({ event: "woken" });
    },
    close: () => end("closed"),
    fail: ({ reason }) => end("failed", reason),
  };

  return {
    /**
     * Handles an event and returns its effects.
     * @param {Event} event
     * @param {number} at milliseconds of a clock that does not go back
     * @param {() => number} randomly returns numbers from 0 (inclusive) to 1 (exclusive)
     */
    step(event, at, randomly) {
      now = at;
      random = randomly;
      out = [];
      if (status !== "closed") events[event.event]?.(event);
      else if (event.event === "handled") {
        // The position of a message whose handler was still running is stored.
        run(event);
        out = out.filter(({ effect }) => effect === "store");
      }
      return out;
    },
    /** Returns when the event `woken` is due, `Infinity` if never. */
    wakeAt: () =>
      socket
        ? Math.min(openBy, pongBy, idleAt, stream.wakeAt(), next || old ? Infinity : rotateAt)
        : Math.min(openBy, retryAt),
    status: () => status,
    isOpen: () => socket > 0,
    isSupported: stream.isSupported,
    position: stream.position,
  };
}

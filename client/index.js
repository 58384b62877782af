/**
 * The client of Streamer for browsers and Node. The rules are in `core.js`; this file has the sockets, the timer, the
 * storage and the callbacks. Its interface is described in `types.js`.
 */

import { MAX_FRAME, MAX_REQUESTS, TICK } from "./limits.js";
import { createCore } from "./core.js";
import { ClosedError, RequestError, TooLargeError, Unauthorized } from "./errors.js";
import { createJob, defer } from "./job.js";
import { createStore } from "./store.js";

export { ClosedError, RequestError, TooLargeError, Unauthorized };

/**
 * A connection to Streamer that heals itself.
 * @type {new <Incoming = any, Outgoing = any>(
 *   url: string, options: import("./types.js").Options) => import("./types.js").Client<Incoming, Outgoing>}
 */
export const StreamerClient = /** @type {any} */ (createClient);

/** @type {(url: string, options: import("./types.js").Options) => import("./types.js").Client} */
function createClient(url, options) {
  const { mailbox, token, auth, window = globalThis, now = Date.now, random = Math.random } = options;
  const core = createCore(mailbox && (mailbox.from ?? "oldest"));
  const store = createStore(mailbox, (error) => report("storage", error));
  /** Sockets by number, `null` while the token is awaited. @type {Map<number, any>} */
  const sockets = new Map();
  /** @type {Record<string, Set<(event: any) => any>>} */
  const calls = {};
  /** @type {Map<string, ReturnType<typeof createJob>>} */
  const jobs = new Map();
  /** Resolves when the state changes, a handler is added, or a loop has a message. */
  let news = defer();
  /** @type {any} */
  let timer;
  let clock = now();
  let time = 0;
  /** Why the client has ended, if it has. @type {Error | undefined} */
  let end;

  const notify = () => {
    news.resolve();
    news = defer();
  };

  /** @param {import("./types.js").Event} event */
  const step = (...event) => {
    const at = now();
    // The client's time never goes back, so that no deadline moves away when the clock is set.
    time += Math.max(0, at - clock);
    clock = at;
    for (const [effect, ...values] of core.step(time, random, ...event)) {
      (effects[effect] ?? emit.bind(null, effect))(...values);
    }
    window.clearTimeout(timer);
    const delay = Math.min(core.wakeAt() - time, TICK);
    if (!end) timer = window.setTimeout(wake, delay, at + delay);
  };

  /** @param {number} due */
  const wake = (due) => {
    // The machine was asleep. A browser delays the timers of hidden pages, and `visibilitychange` follows.
    if (now() - due > TICK) check({ type: "online" });
    step("woken");
  };

  /** @type {(id: number, refused: boolean) => Promise<void>} */
  const open = async (id, refused) => {
    const { WebSocket = window.WebSocket } = options;
    sockets.set(id, null);
    try {
      const text = (await token({ refused })).trim();
      // The client has given up the wait for the token.
      if (!sockets.has(id)) return;
      const stored = store.identify(text);
      if (stored) step("restored", stored);
      const socket =
        auth === "query"
          ? new WebSocket(url + "?Authorization=" + encodeURIComponent(text))
          : new WebSocket(url, ["streamer.jwt", text]);
      sockets.set(id, socket);
      socket.onopen = () => step("opened", id);
      socket.onmessage = (/** @type {{ data: any }} */ { data }) => step("frame", id, data);
      socket.onclose = () => step("closed", id);
      // `close` follows.
      socket.onerror = () => {};
    } catch (error) {
      if (!sockets.has(id)) return;
      if (error instanceof Unauthorized) {
        end = error;
        step("end", "failed", "unauthorized");
      } else {
        report("token", error);
        step("closed", id, "token");
      }
    }
  };

  /** @param {import("./types.js").Message} message */
  const deliver = async (message) => {
    while (message.kept && !calls.message?.size) await news.promise;
    step("handled", (await emit("message", message)).includes(true));
  };

  /** @type {Record<string, (...values: any[]) => unknown>} */
  const effects = {
    open,
    close(id) {
      sockets.get(id)?.close(1000);
      sockets.delete(id);
    },
    send: (id, text) => sockets.get(id)?.send(text),
    deliver,
    answer: (answer) => jobs.get(answer.request_id)?.take(answer),
    store: store.save,
    state(event) {
      if (end) {
        listen("removeEventListener");
        jobs.forEach(({ fail }) => fail(end));
      }
      emit("state", event);
      notify();
    },
  };

  /** @type {(id: string, text?: string, resend?: boolean) => import("./types.js").Job<any>} */
  const start = (id, text, resend) => {
    const entry = createJob(id, () => step("cancel", id));
    const stop = () => jobs.delete(id);
    try {
      checkSize(text);
      if (end) throw end;
      if (jobs.has(id) || jobs.size >= MAX_REQUESTS) throw new RangeError("too many requests or a repeated id");
      jobs.set(id, entry);
      entry.job.then(stop, stop);
      step("request", id, text, resend);
    } catch (error) {
      entry.fail(error);
    }
    return entry.job;
  };

  /** @type {(isTrue: () => boolean) => Promise<void>} */
  const until = (isTrue) => {
    const wait = async () => {
      while (!isTrue()) {
        if (end) throw end;
        await news.promise;
      }
    };
    const promise = wait();
    // A rejection that nothing awaits is not an unhandled one.
    promise.catch(() => {});
    return promise;
  };

  /** @param {"addEventListener" | "removeEventListener"} method */
  const listen = (method) => {
    window.document?.[method]("visibilitychange", check);
    window[method]?.("pageshow", check);
    window[method]?.("online", check);
  };

  /** @param {{ type: string }} event */
  const check = ({ type }) => {
    if (!window.document?.hidden) step("check", type === "online");
  };

  /** @type {(source: string, error: unknown) => void} */
  const report = (source, error) => {
    if (!calls.error?.size) console.error("streamer-client", source, error);
    emit("error", { source, error });
  };

  /** Returns for each call whether it threw. @type {(name: string, event: object) => Promise<(true | undefined)[]>} */
  const emit = (name, event) =>
    Promise.all(
      [...(calls[name] ?? [])].map(async (call) => {
        try {
          await call(event);
        } catch (error) {
          if (name !== "error") report("handler", error);
          return true;
        }
      }),
    );

  return {
    get state() {
      return core.status();
    },
    get position() {
      return core.position();
    },
    on: (name, call) => {
      (calls[name] ??= new Set()).add(call);
      notify();
      return () => calls[name].delete(call);
    },
    off: (name, call) => calls[name]?.delete(call),
    connect() {
      if (!end) listen("addEventListener");
      step("connect");
      return until(core.isOpen);
    },
    caughtUp: () =>
      until(() => {
        if (!core.isSupported()) throw new RequestError({ code: "unsupported" });
        return core.status() === "caughtUp";
      }),
    async *messages() {
      let message;
      /** @type {(value?: any) => void} */
      let left = () => {};
      const leave = this.on("message", (next) => {
        message = next;
        notify();
        return new Promise((resolve) => (left = resolve));
      });
      try {
        while (!end) {
          if (message) {
            yield message;
            message = undefined;
            left();
          } else await news.promise;
        }
      } finally {
        leave();
        left();
      }
    },
    request(request, { resend = true } = {}) {
      const message = { request_id: "req_" + now() + random(), ...request };
      return start(message.request_id, JSON.stringify(message), resend);
    },
    resume: (id) => jobs.get(id)?.job ?? start(id),
    async send(value) {
      const text = JSON.stringify(value);
      checkSize(text);
      if (!core.isOpen()) throw new ClosedError("not connected");
      step("send", text);
    },
    async close() {
      end ??= new ClosedError("closed");
      step("end", "closed");
    },
  };
}

/**
 * @param {string} [text]
 * @throws {TooLargeError} if API Gateway would close the connection
 */
const checkSize = (text = "") => {
  if (new Blob([text]).size > MAX_FRAME) throw new TooLargeError("over 32 KiB: send a reference");
};

/**
 * The client of Streamer for browsers and Node. The rules are in `core.js`; this file has the sockets, the timer, the
 * storage and the callbacks.
 */

import { createCore } from "./core.js";
import { ClosedError, RequestError, TooLargeError, Unauthorized, UnsupportedError } from "./errors.js";
import { createJob, defer } from "./job.js";
import { createStore } from "./store.js";

export { ClosedError, RequestError, TooLargeError, Unauthorized, UnsupportedError };

/** Largest frame in bytes. API Gateway closes a connection with 1009 at a larger one. */
const MAX_FRAME = 32 * 1024;
/** Requests that have not ended. */
const MAX_REQUESTS = 1000;
/** Longest time in milliseconds between two looks at the clock, so that sleep is noticed. */
const TICK = 30_000;
/** A message was not handled, since the loop that had it was left. */
const LEFT = Symbol();

/** @typedef {import("./core.js").Effect} Effect */

/**
 * A connection to Streamer that heals itself.
 * @template [Incoming=any]
 * @template [Outgoing=any]
 */
export class StreamerClient {
  #url;
  #options;
  #core;
  #window;
  #store;
  /** Sockets by number, `null` while the token is awaited. @type {Map<number, any>} */
  #sockets = new Map();
  /** @type {Record<string, Set<(event: any) => any>>} */
  #listeners = { state: new Set(), message: new Set(), gap: new Set(), caughtUp: new Set(), error: new Set() };
  /** Resolves when a handler of messages is added. */
  #handler = defer();
  /** @type {Map<string, ReturnType<typeof createJob>>} */
  #jobs = new Map();
  /** @type {any} */
  #timer;
  #timerAt = Infinity;
  #now = 0;
  /** @type {number | undefined} */
  #clock;
  #replayed = 0;
  /** @type {Error} */
  #end = new ClosedError("the client is closed");

  /**
   * @param {string} url the stage's URL, `wss://…/live`
   * @param {import("./types.js").Options} options
   */
  constructor(url, options) {
    const { mailbox, window = globalThis } = options;
    this.#url = url;
    this.#options = options;
    this.#core = createCore({ ...options, from: mailbox && (mailbox.from ?? "oldest") });
    this.#window = window;
    this.#store = createStore(mailbox, (error) => this.#report("storage", error));
  }

  /** The state of the connection. */
  get state() {
    return this.#core.status();
  }

  /** The position of the last kept message that was handled. */
  get position() {
    return this.#core.position();
  }

  /**
   * Calls back on each event, and returns a function that ends the calls. A handler of `message` may be asynchronous:
   * the next message waits for it.
   * @template {keyof import("./types.js").Events} Name
   * @param {Name} name
   * @param {(event: import("./types.js").Events<Incoming>[Name]) => unknown} call
   */
  on(name, call) {
    this.#listeners[name].add(call);
    if (name === "message") {
      this.#handler.resolve();
      this.#handler = defer();
    }
    return () => this.off(name, call);
  }

  /**
   * Ends the calls of {@link on}.
   * @template {keyof import("./types.js").Events} Name
   * @param {Name} name
   * @param {(event: import("./types.js").Events<Incoming>[Name]) => unknown} call
   */
  off(name, call) {
    this.#listeners[name].delete(call);
  }

  /**
   * Connects, and stays connected until {@link close}. Resolves at the first connection.
   * @returns {Promise<void>}
   * @throws {Unauthorized} if the token callback throws it
   */
  connect() {
    this.#listen("addEventListener");
    this.#step({ event: "connect" });
    return this.#until(() => this.#core.isOpen());
  }

  /**
   * Resolves when every kept message up to the newest one was handled.
   * @returns {Promise<void>}
   * @throws {UnsupportedError} if there is no mailbox
   */
  caughtUp() {
    return this.#until(() => {
      if (!this.#core.isSupported()) throw new UnsupportedError("the API has no mailbox");
      return this.state === "caughtUp";
    });
  }

  /**
   * Returns messages one by one. A message counts as handled when the loop asks for the next one; the message at which
   * a loop is left goes to the next loop or handler.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<import("./types.js").Message<Incoming>, void, void>}
   */
  async *messages({ signal } = {}) {
    /** @type {import("./types.js").Message<Incoming> | undefined} */
    let message;
    let news = defer();
    let end = defer();
    const wake = () => news.resolve();
    const off = this.on("state", wake);
    const leave = this.on("message", (next) => {
      message = next;
      end = defer();
      wake();
      return end.promise;
    });
    signal?.addEventListener("abort", wake);
    try {
      while (!signal?.aborted && !this.#isOver()) {
        if (message) {
          yield message;
          message = undefined;
          end.resolve();
        } else {
          await news.promise;
          news = defer();
        }
      }
    } finally {
      leave();
      off();
      signal?.removeEventListener("abort", wake);
      end.reject(LEFT);
    }
  }

  /**
   * Sends a request and returns its job. The request is sent again with the same `request_id` on each new connection
   * until an answer has come, unless `resend` is false.
   * @template [Result=any]
   * @param {Outgoing} request an object; its `request_id` is random unless it has one
   * @param {{ signal?: AbortSignal, resend?: boolean }} [options]
   * @returns {import("./job.js").Job<Result>}
   */
  request(request, { signal, resend = true } = {}) {
    const digits = () => this.#random().toString(36).slice(2);
    const id = /** @type {any} */ (request).request_id ?? "req_" + digits() + digits();
    return this.#start(id, signal, { text: JSON.stringify({ ...request, request_id: id }), resend });
  }

  /**
   * Returns the job of a request that was sent before a reload.
   * @template [Result=any]
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {import("./job.js").Job<Result>}
   */
  resume(id, { signal } = {}) {
    return this.#jobs.get(id)?.job ?? this.#start(id, signal);
  }

  /**
   * Sends a value once.
   * @param {Outgoing} value
   * @throws {TooLargeError | ClosedError}
   */
  async send(value) {
    const text = JSON.stringify(value);
    checkSize(text);
    if (!this.#core.isOpen()) throw new ClosedError("no connection is open");
    this.#step({ event: "send", text });
  }

  /** Closes the connection for good. */
  async close() {
    this.#step({ event: "close" });
  }

  #random = () => (this.#options.random ?? Math.random)();

  #isOver = () => this.state === "closed" || this.state === "failed";

  /** Returns the time of a clock that stands still while the other one is set back, so that no deadline moves away. */
  #time() {
    const clock = (this.#options.now ?? Date.now)();
    this.#now += Math.max(0, clock - (this.#clock ?? clock));
    this.#clock = clock;
    return this.#now;
  }

  /** @param {import("./core.js").Event} event */
  #step(event) {
    for (const effect of this.#core.step(event, this.#time(), this.#random)) this.#effects[effect.effect](effect);
    // A timer that is due earlier than necessary does no harm, and saves one for each message.
    const due = this.#core.wakeAt();
    const at = Math.min(due, this.#now + TICK);
    if (due < Infinity && at >= this.#timerAt) return;
    this.#window.clearTimeout(this.#timer);
    this.#timerAt = Infinity;
    if (due < Infinity) {
      this.#timerAt = at;
      this.#timer = this.#window.setTimeout(this.#wake, at - this.#now);
    }
  }

  #wake = () => {
    // A browser delays the timers of hidden pages, and `visibilitychange` follows.
    const late = this.#window.document?.hidden ? 0 : this.#time() - this.#timerAt;
    this.#timerAt = Infinity;
    this.#step({ event: "woken", late });
  };

  /** @type {Record<string, (effect: Effect) => void>} */
  #effects = {
    open: ({ socket, refused }) => void this.#open(socket, refused),
    close: ({ socket: id }) => {
      const socket = this.#sockets.get(id);
      this.#sockets.delete(id);
      socket?.close(1000);
    },
    send: ({ socket, text }) => this.#sockets.get(socket)?.send(text),
    deliver: (effect) => void this.#deliver(effect),
    answer: ({ payload }) => this.#jobs.get(payload.request_id)?.take(payload),
    store: (effect) => this.#store.save(/** @type {any} */ (effect)),
    gap: ({ range, count, reason }) => {
      const [from, to] = range ?? [];
      this.#emit("gap", { from, to, count: range ? to - from + 1 : count, reason: reason === "epoch" ? "reset" : reason });
    },
    caught_up: () => {
      this.#emit("caughtUp", { replayed: this.#replayed });
      this.#replayed = 0;
    },
    fault: ({ message }) => this.#report("server", new Error(message)),
    state: ({ state, reason, retry_in: retryIn }) => {
      if (this.#isOver()) {
        this.#listen("removeEventListener");
        for (const { fail } of this.#jobs.values()) fail(this.#end);
      }
      this.#emit("state", { state, reason, retryIn });
    },
  };

  /** @type {(id: number, refused: boolean) => Promise<void>} */
  async #open(id, refused) {
    const { token, auth, WebSocket = this.#window.WebSocket } = this.#options;
    this.#sockets.set(id, null);
    /** @type {(event: string, fields?: object) => void} */
    const tell = (event, fields) => {
      // Nothing counts once the client has closed the socket, or has given up the wait for its token.
      if (this.#sockets.has(id)) this.#step({ event, socket: id, ...fields });
    };
    try {
      const text = (await token({ refused })).trim();
      if (!this.#sockets.has(id)) return;
      const stored = this.#store.identify(text);
      if (stored) this.#step({ event: "restored", stored });
      const socket =
        auth === "query"
          ? new WebSocket(this.#url + "?Authorization=" + encodeURIComponent(text))
          : new WebSocket(this.#url, ["streamer.jwt", text]);
      this.#sockets.set(id, socket);
      socket.onopen = () => tell("opened");
      socket.onmessage = (/** @type {{ data: any }} */ { data }) => tell("frame", { text: data });
      socket.onclose = () => tell("closed");
      // `close` follows.
      socket.onerror = () => {};
    } catch (error) {
      if (error instanceof Unauthorized) {
        this.#end = error;
        tell("fail", { reason: "unauthorized" });
      } else {
        this.#report("token", error);
        tell("closed", { reason: "token" });
      }
    }
  }

  /** @param {Effect} effect */
  async #deliver({ seq, id, payload, replayed = false }) {
    const kept = seq !== undefined;
    if (replayed) this.#replayed++;
    for (let isHandled = false; !isHandled; ) {
      const calls = [...this.#listeners.message];
      if (calls.length) {
        const message = { id, seq, kept, replayed, data: payload };
        isHandled = (await Promise.all(calls.map((call) => this.#call(call, message)))).includes(true);
      } else if (kept) await this.#handler.promise;
      else break;
    }
    this.#step({ event: "handled" });
  }

  /** Returns whether a message was handled. @type {(call: (message: any) => any, message: object) => Promise<boolean>} */
  async #call(call, message) {
    try {
      await call(message);
    } catch (error) {
      if (error === LEFT) return false;
      this.#report("handler", error);
    }
    return true;
  }

  /** @type {(id: string, signal?: AbortSignal, request?: { text?: string, resend?: boolean }) => import("./job.js").Job<any>} */
  #start(id, signal, request = {}) {
    const entry = createJob(id);
    const abort = () => {
      this.#step({ event: "cancel", id });
      entry.fail(signal?.reason);
    };
    try {
      checkSize(request.text ?? "");
      signal?.throwIfAborted();
      if (this.#isOver()) throw this.#end;
      if (this.#jobs.size >= MAX_REQUESTS || this.#jobs.has(id)) throw new RangeError(`at most ${MAX_REQUESTS} requests at a time, each with its own id`);
      this.#jobs.set(id, entry);
      signal?.addEventListener("abort", abort);
      const end = () => {
        this.#jobs.delete(id);
        signal?.removeEventListener("abort", abort);
      };
      entry.job.then(end, end);
      this.#step({ event: "request", id, ...request });
    } catch (error) {
      entry.fail(error);
    }
    return entry.job;
  }

  /** @type {(isTrue: () => boolean) => Promise<void>} */
  #until(isTrue) {
    const { promise, resolve, reject } = defer();
    const look = () => {
      try {
        if (this.#isOver()) throw this.#end;
        if (isTrue()) resolve();
      } catch (error) {
        reject(error);
      }
    };
    const off = this.on("state", look);
    promise.then(off, off);
    look();
    return promise;
  }

  /** @param {"addEventListener" | "removeEventListener"} method */
  #listen(method) {
    const window = this.#window;
    window.document?.[method]("visibilitychange", this.#check);
    window[method]?.("pageshow", this.#check);
    window[method]?.("online", this.#check);
  }

  /** @param {{ type: string }} event */
  #check = ({ type }) => {
    if (!this.#window.document?.hidden) this.#step({ event: "check", wasAway: type === "online" });
  };

  /** @type {(source: string, error: unknown) => void} */
  #report(source, error) {
    if (!this.#listeners.error.size) console.error("streamer-client", source, error);
    this.#emit("error", { source, error });
  }

  /** @type {(name: string, event: object) => void} */
  #emit(name, event) {
    for (const call of [...this.#listeners[name]]) {
      try {
        call(event);
      } catch (error) {
        if (name === "error") console.error("streamer-client", error);
        else this.#report("handler", error);
      }
    }
  }
}

/**
 * @param {string} text
 * @throws {TooLargeError} if API Gateway would close the connection
 */
function checkSize(text) {
  const { size } = new Blob([text]);
  if (size > MAX_FRAME) throw new TooLargeError(`a frame has at most ${MAX_FRAME} bytes, got ${size}`);
}

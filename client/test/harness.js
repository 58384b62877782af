/** A clock that moves only when a test says so, sockets without a network, and a client on both. */

import { StreamerClient } from "../index.js";

/** Lets promises settle. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A window with a clock, timers, and the events of a page. */
export class Window extends EventTarget {
  time = 1_000_000;
  timers = new Map();
  #last = 0;
  document = Object.assign(new EventTarget(), { hidden: false });
  #listened = new Set();

  /** Rounds up to whole milliseconds, as the clock has them. */
  setTimeout = (call, ms, ...values) => {
    this.timers.set(++this.#last, { at: this.time + Math.max(0, Math.ceil(ms)), call, values });
    return this.#last;
  };
  clearTimeout = (id) => this.timers.delete(id);

  addEventListener(...event) {
    this.#listened.add(event[0]);
    super.addEventListener(...event);
  }
  removeEventListener(...event) {
    this.#listened.delete(event[0]);
    super.removeEventListener(...event);
  }

  get listeners() {
    return this.#listened.size;
  }

  /** Moves the clock, and runs timers at their time. */
  async advance(ms) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const next = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0];
      if (!next || next[1].at > end) break;
      this.timers.delete(next[0]);
      this.time = Math.max(this.time, next[1].at);
      next[1].call(...next[1].values);
      await settle();
    }
    this.time = end;
  }

  /** Moves the clock as if the machine slept: timers run late. */
  async sleep(ms) {
    this.time += ms;
    await this.advance(0);
  }
}

/** Creates a client with sockets that the test opens and closes. */
export function rig(options = {}) {
  const window = new Window();
  const sockets = [];
  const events = [];
  class FakeSocket {
    readyState = 0;
    sent = [];
    constructor(url, protocols) {
      Object.assign(this, { url, protocols });
      sockets.push(this);
    }
    send(text) {
      if (this.readyState !== 1) throw new Error("not open");
      const frame = JSON.parse(text);
      this.sent.push(frame);
      queueMicrotask(() => this.serve?.(frame));
    }
    /** Called by the client. */
    close(code) {
      this.closedWith = code;
      this.readyState = 3;
    }
    open() {
      this.readyState = 1;
      this.onopen?.({});
    }
    frame(value) {
      if (this.readyState === 1) this.onmessage?.({ data: typeof value === "string" ? value : JSON.stringify(value) });
    }
    drop(code = 1006) {
      this.readyState = 3;
      this.onerror?.({});
      this.onclose?.({ code });
    }
    /** Takes the frames that were sent. */
    take() {
      return this.sent.splice(0);
    }
  }
  const client = new StreamerClient("wss://example.com/live", {
    token: () => "token",
    window,
    WebSocket: FakeSocket,
    now: () => window.time,
    random: () => 0.5,
    ...options,
  });
  for (const name of ["state", "gap", "caughtUp", "error"]) client.on(name, (event) => events.push([name, event]));
  const states = () => events.filter(([name]) => name === "state").map(([, { state }]) => state);
  /** Connects, and answers the first sync with an empty page. */
  const start = async () => {
    client.connect();
    await settle();
    sockets[0].open();
    if (options.mailbox) sockets[0].frame(page(1, 0, 0));
    await settle();
    return sockets[0];
  };
  /** Moves the clock until the client opens a socket, and returns the socket. */
  const next = async () => {
    const { length } = sockets;
    for (let step = 0; step < 1000 && sockets.length === length; step++) await window.advance(100);
    return sockets[length];
  };
  return { client, window, sockets, events, states, start, next };
}

export const live = (seq, payload = seq, id = `m${seq}`) => ({
  type: "streamer.message", stream: "user", epoch: "e", seq, id, payload,
});

/** A page of the numbers after `after`. */
export const page = (n, after, through, top = through, fields = {}) => ({
  type: "streamer.page", n, stream: "user", epoch: "e", after, through, top,
  messages: Array.from({ length: through - after }, (_, i) => after + 1 + i).map((seq) => ({ seq, id: `m${seq}`, payload: seq })),
  missing: [], expires_in: 7200, now: 1_764_000_000_000, ...fields,
});

/** Whether a promise has settled, and how. */
export const outcome = async (promise) => {
  await settle();
  return Promise.race([
    promise.then((value) => ({ value }), (error) => ({ error })),
    new Promise((resolve) => setImmediate(resolve, "pending")),
  ]);
};

/** Storage in memory. */
export function storage(entries = {}) {
  const map = new Map(Object.entries(entries));
  return { map, getItem: (key) => map.get(key) ?? null, setItem: (key, value) => void map.set(key, value) };
}

/** A token for a user. */
export const jwt = (sub, tenant_id = "acme", fields = {}) =>
  `h.${Buffer.from(JSON.stringify({ sub, tenant_id, ...fields })).toString("base64url")}.s`;

/**
 * The rules for kept messages: from events to effects, without sockets, timers or clocks.
 *
 * Frames lead to messages and gaps in the order of the stream. These wait in a line, and the handler gets one after
 * the other. Messages that are not kept use the same line.
 *
 * @typedef {import("./types.js").Position} Position
 * @typedef {import("./types.js").Entry} Entry
 * @typedef {import("./types.js").PageFrame} PageFrame
 */

import { ACK_IDS, HOLE, IDS, MAX_BYTES, MAX_DELAY, MAX_FIRST_SYNCS, MAX_MESSAGES, MAX_SYNCS, PAGE } from "./limits.js";

/**
 * Creates a stream.
 * @param {"oldest" | "now" | null | undefined} from the beginning without a position; none without a mailbox
 * @param {import("./types.js").Host} host
 */
export const createStream = (from, host) => {
  const { emit, send } = host;
  /** The position of the last message in the line. @type {Position | undefined} */
  let position;
  /** The position of the last message that was handled. @type {Position | undefined} */
  let handled;
  /** The ids of the last messages that were handled. @type {Set<string>} */
  let ids = new Set();
  /** Messages before their turn, by number. @type {Map<number, Entry>} */
  const held = new Map();
  /** @type {(Entry | { gap: import("./types.js").Gap, after: Position } | {})[]} */
  const line = [];
  /** The ids of kept messages in the line. @type {Set<string>} */
  const waiting = new Set();
  /** The ids of handled messages that are not acknowledged yet. @type {string[]} */
  const acks = [];
  /** The bytes of the messages in `held` and `line`. */
  let bytes = 0;
  /** `isBehind`: the client knows of messages that it could not hold. */
  let isHandling = false, isOpen = false, isRegistered = false, isUnsupported = false, isBehind = false;
  /** The entry of the line at whose turn the client is caught up. @type {{} | undefined} */
  let caughtUp;
  /** The number of the last sync. */
  let n = 0;
  /** Until when a page is awaited, and when the next sync is due. */
  let pageBy = 0, syncAt = 0;
  /** Syncs without a page since the last page, over all sockets. */
  let failed = 0;
  /** Since when a message is missing before those that are held, or the client is behind. */
  let holeSince = Infinity;
  /** Messages of pages since the client was caught up. */
  let replayed = 0, now = 0;

  const isSupported = () => !!from && !isUnsupported;
  const hasRoom = (extra = 1) => line.length + held.size + acks.length < MAX_MESSAGES && bytes + extra <= MAX_BYTES;
  const store = () => emit("store", { ...handled, ids: [...ids] });

  /** Sends a sync. */
  const ask = () => {
    if (!isOpen || !isSupported()) return;
    pageBy = now + PAGE;
    syncAt = 0;
    isBehind = false;
    holeSince = Infinity;
    send("streamer.sync", { n: ++n, hello: !isRegistered, streams: [{ stream: "user", ...(position ?? { from }) }] });
  };

  /** Acknowledges handled messages. Without a socket, they wait for the next one. */
  const acknowledge = () => {
    while (isOpen && acks[0]) send("streamer.ack", { ids: acks.splice(0, ACK_IDS) });
  };

  /** Takes the mailbox for absent, until the next socket is open. */
  const giveUp = () => {
    isUnsupported = true;
    pageBy = 0;
    host.unsupported();
  };

  /** @type {(message: import("./types.js").PageMessage, size: number, replayed: boolean) => void} */
  const hold = ({ seq, id, payload, ack }, size, replayed) => {
    if (held.has(seq)) return;
    held.set(seq, { message: { id, seq, kept: true, replayed, data: payload }, bytes: size, ack });
    bytes += size;
  };

  /** Drops held messages up to a number. @param {number} through */
  const unhold = (through) => {
    for (const [seq, entry] of held) {
      if (seq <= through) {
        bytes -= entry.bytes;
        held.delete(seq);
      }
    }
  };

  /** Moves the message after the position to the line. Returns whether it is held. @param {Position} position */
  const moveToLine = (position) => {
    const entry = held.get(position.seq + 1);
    if (!entry) return false;
    held.delete(++position.seq);
    line.push(entry);
    const id = /** @type {string} */ (entry.message.id);
    entry.skip = ids.has(id) || waiting.has(id);
    if (!entry.skip) {
      waiting.add(id);
      // An answer does not wait for the handler of other messages.
      entry.skip = host.answer(entry.message.data);
    }
    return true;
  };

  /** Moves held messages whose turn has come to the line. @param {Position} at */
  const takeHeld = (at) => {
    while (moveToLine(at));
    unhold(at.seq);
  };

  /** @type {(frame: import("./types.js").MessageFrame, size: number) => void} */
  const takeLive = (frame, size) => {
    if (!position || position.epoch !== frame.epoch) {
      // Only a page says where the stream begins. The page may have been read already.
      isBehind = true;
      if (position) events.idle();
    } else if (frame.seq > position.seq) {
      if (hasRoom(size)) {
        hold(frame, size, false);
        takeHeld(position);
      } else isBehind = true;
    }
  };

  /** @type {(page: PageFrame, size: number) => void} */
  const takePage = (page, size) => {
    const isAwaited = (pageBy || syncAt) && page.n === n;
    const start = { epoch: page.epoch, seq: page.after };
    if (!position || page.reset) {
      if (!isAwaited) return;
      if (position) {
        unhold(Infinity);
        caughtUp = undefined;
        line.push({ gap: { reason: page.reset }, after: start });
      } else {
        // It is stored, so that messages that expire from now on are told as a gap.
        handled = start;
        store();
      }
      position = { ...start };
    } else if (position.epoch !== page.epoch || page.after > position.seq) return;
    takeRange(position, page, size);
    takeHeld(position);
    // A page with a hole is an answer that never came.
    if (isAwaited && position.seq >= page.through) answered(page);
  };

  /**
   * Moves the messages and gaps of a page to the line, up to a hole.
   * @type {(at: Position, page: PageFrame, size: number) => void}
   */
  const takeRange = (at, page, size) => {
    for (const message of page.messages) {
      if (message.seq > at.seq) hold(message, Math.ceil(size / page.messages.length), true);
    }
    while (at.seq < page.through) {
      if (moveToLine(at)) continue;
      const from = at.seq + 1;
      const missing = page.missing.find((range) => range.from <= from && from <= range.to);
      if (!missing) return;
      // A message that arrived live before it expired is no gap.
      unhold(at.seq);
      at.seq = Math.min(missing.to + 1, ...held.keys()) - 1;
      line.push({ gap: { reason: missing.reason, from, to: at.seq, count: at.seq - from + 1 }, after: { ...at } });
    }
  };

  /** Ends a sync. @param {PageFrame} page */
  const answered = (page) => {
    pageBy = syncAt = failed = 0;
    // The client is not caught up with an older page while a newer one is in the line.
    if (line.includes(/** @type {{}} */ (caughtUp))) caughtUp = undefined;
    if (!isRegistered) host.registered();
    // A new stream may not have the connection's registration, so the next sync is a hello again.
    isRegistered = !page.reset;
    if (page.reset) ask();
    else if (page.through < page.top) hasRoom() ? ask() : (isBehind = true);
    else if (!caughtUp) line.push((caughtUp = {}));
  };

  /** Completes the message at the head of the line. @param {boolean} [failed] whether its handler threw */
  const complete = (failed) => {
    const { message, bytes: size, ack } = /** @type {Entry} */ (line.shift());
    bytes -= size;
    if (!message.kept) return;
    const { id, seq } = /** @type {{ id: string, seq: number }} */ (message);
    /** @type {Position} */ (handled).seq = seq;
    // An earlier message had the id.
    if (!waiting.delete(id)) return;
    ids.add(id);
    if (ids.size > IDS) ids.delete(/** @type {string} */ (ids.keys().next().value));
    store();
    if (ack && !failed) acks.push(id);
  };

  /** Moves on to the next message that the handler has to handle. */
  const advance = () => {
    while (!isHandling && line.length) {
      const entry = line[0];
      if ("message" in entry) {
        const { message, skip } = entry;
        isHandling = !skip && !host.deliver(message);
        if (!isHandling) complete();
        else if (message.replayed) replayed++;
        continue;
      }
      line.shift();
      if ("gap" in entry) {
        handled = entry.after;
        emit("gap", entry.gap);
        store();
      } else if (entry === caughtUp) {
        // A slow handler leads to other entries after the socket was closed, or after a newer page.
        emit("caughtUp", { replayed });
        replayed = 0;
      }
    }
  };

  const wakeAt = () => (acks[0] ? now : syncAt || pageBy || holeSince + HOLE);

  /** @type {Record<string, (...values: any[]) => void>} */
  const events = {
    restored({ ids: list, ...at }) {
      position = { ...at };
      handled = at;
      ids = new Set(list);
    },
    ended() {
      acknowledge();
      line.splice(+isHandling);
    },
    opened() {
      isOpen = true;
      isRegistered = isUnsupported = false;
      caughtUp = undefined;
      ask();
    },
    closed() {
      isOpen = false;
      caughtUp = undefined;
      pageBy = syncAt = 0;
    },
    frame(frame, size) {
      if (!isSupported()) return;
      if (frame.messages) takePage(frame, size);
      else takeLive(frame, size);
    },
    payload(data, size) {
      if (hasRoom(size)) {
        bytes += size;
        line.push({ message: { id: data?.id, kept: false, replayed: false, data }, bytes: size });
      } else emit("gap", { reason: "dropped", count: 1 });
    },
    handled(failed) {
      isHandling = false;
      complete(failed);
    },
    idle() {
      if (!pageBy && !syncAt) ask();
    },
    refused() {
      if (pageBy) giveUp();
    },
    woken() {
      acknowledge();
      if (wakeAt() > now) return;
      if (pageBy) {
        pageBy = 0;
        if (++failed >= MAX_FIRST_SYNCS && !position) giveUp();
        else if (failed % MAX_SYNCS) syncAt = now + Math.min(MAX_DELAY, 1000 * 2 ** (failed - 1));
        else host.reconnect();
      } // Without room, the handler is slow.
      else if (syncAt || hasRoom() || held.size) ask();
      else holeSince = now;
    },
  };

  return {
    /** Handles an event. @type {(at: number, event: string, ...values: any[]) => void} */
    step(at, event, ...values) {
      now = at;
      events[event](...values);
      advance();
      holeSince = isSupported() && (held.size || isBehind) ? Math.min(holeSince, now) : Infinity;
    },
    /** Returns when the event `woken` is due. */
    wakeAt,
    /** Whether there is a mailbox, as far as is known. */
    isSupported,
    position: () => handled && { ...handled },
  };
};

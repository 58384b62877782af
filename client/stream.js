/**
 * The rules for kept messages: from events to effects, without sockets, timers or clocks.
 *
 * Frames lead to messages and gaps in the order of the stream. These wait in a line, and the handler gets one after
 * the other. Messages that are not kept use the same line.
 *
 * @typedef {{ epoch: string, seq: number }} Position
 * @typedef {Position & { ids: string[] }} Stored
 * @typedef {{ seq?: number, id?: any, payload: any, bytes: number, replayed?: boolean, skip?: number }} Message
 *   `seq` is absent for a message that is not kept. `skip`: {@link REPEATED} or {@link ANSWERED}.
 * @typedef {{ range: [number, number] | null, reason: string, count?: number, after?: Position }} Gap
 * @typedef {{ effect: string, [field: string]: any }} Effect
 * @typedef {{ event: string, [field: string]: any }} Event
 * @typedef {ReturnType<typeof createStream>} Stream
 */

/** Milliseconds for which a hole may stay before the client asks for a page. */
const HOLE = 300;
/** Milliseconds for which the client waits for a page. */
const PAGE = 5000;
/** Longest delay in milliseconds before the next sync after one without a page. */
const MAX_DELAY = 30_000;
/** Syncs without a page after which the client reconnects. */
const MAX_SYNCS = 3;
/** Syncs without a page after which a client that never had one takes the mailbox for absent. */
const MAX_FIRST_SYNCS = 6;
/** Messages that wait for their turn or for the handler, and their bytes. */
const MAX_MESSAGES = 1000;
const MAX_BYTES = 4 * 1024 * 1024;
/** Ids that are stored with the position. */
const IDS = 128;

/** A message with the id of an earlier one. */
const REPEATED = 1;
/** A message that its request has got already. */
const ANSWERED = 2;

/** @param {any} value */
const isNumber = (value) => Number.isSafeInteger(value) && value >= 0;

/** @param {any} value */
export const isId = (value) => !!value && typeof value === "string";

/** @param {any} message */
const isMessage = (message) => isNumber(message.seq) && isId(message.id);

/**
 * Returns whether a frame is a page or a kept message that can be read.
 * @param {any} frame
 * @throws {TypeError} if it can't
 */
export const isFrame = (frame) =>
  frame.stream === "user" &&
  isId(frame.epoch) &&
  (frame.messages
    ? [frame.n, frame.after, frame.through, frame.top].every(isNumber) &&
      frame.messages.every(isMessage) &&
      frame.missing.every((/** @type {any} */ range) => isNumber(range.from) && isNumber(range.to))
    : isMessage(frame));

/**
 * Creates a stream.
 * @param {"oldest" | "now" | null | undefined} from the beginning without a position; none without a mailbox
 * @param {(effect: Effect) => unknown} emit takes an effect. For `deliver`, it returns whether the message needs no
 *   handler
 * @param {(payload: any) => boolean} answer gives a payload to the request that waits for it, if one does
 */
export function createStream(from, emit, answer) {
  /** The position of the last message in the line. @type {Position | null} */
  let position = null;
  /** The position of the last message that was handled. @type {Position | null} */
  let handled = null;
  /** The ids of the last messages that were handled. @type {Set<string>} */
  let ids = new Set();
  /** Messages before their turn, by number. @type {Map<number, Message>} */
  const held = new Map();
  /** @type {(Message | Gap | { top: number })[]} */
  const line = [];
  /** The ids of kept messages in the line. @type {Set<string>} */
  const waiting = new Set();
  /** The bytes of the messages in `held` and `line`. */
  let bytes = 0;
  let [isHandling, isOpen, isRegistered, isCaughtUp, isUnsupported, isBehind] = Array(6).fill(false);
  /** The number of the last sync. */
  let n = 0;
  /** Until when a page is awaited, and when the next sync is due. */
  let pageBy = 0;
  let syncAt = 0;
  /** Syncs without a page since the last page, over all sockets. */
  let failed = 0;
  /** The last `top` that the client reached. */
  let top = 0;
  /** Since when a message is missing before those that are held, or the client knows of ones that it could not hold. */
  let holeSince = Infinity;
  let now = 0;

  const hasRoom = (extra = 1) => line.length + held.size < MAX_MESSAGES && bytes + extra <= MAX_BYTES;

  const store = () => emit({ effect: "store", ...handled, ids: [...ids] });

  /** Sends a sync. */
  function ask() {
    if (!isOpen || !from) return;
    const type = "streamer.sync";
    const stream = { stream: "user", ...(position ?? { from }) };
    // Without a mailbox no page is expected. One that comes nevertheless is taken.
    pageBy = isUnsupported ? Infinity : now + PAGE;
    syncAt = 0;
    isBehind = false;
    holeSince = Infinity;
    emit({ effect: "send", text: JSON.stringify({ type, action: type, n: ++n, hello: !isRegistered, streams: [stream] }) });
  }

  /** Takes the mailbox for absent. */
  function giveUp() {
    isUnsupported = true;
    pageBy = Infinity;
    emit({ effect: "unsupported" });
  }

  /** Notes that a page has to bring a message. */
  function fallBehind() {
    isBehind = true;
    holeSince = Math.min(holeSince, now);
  }

  /** @param {Message & { seq: number }} message */
  function hold(message) {
    if (held.has(message.seq)) return;
    held.set(message.seq, message);
    bytes += message.bytes;
  }

  /** Drops held messages up to a number. @param {number} through */
  function unhold(through) {
    for (const [seq, message] of held) {
      if (seq <= through) {
        bytes -= message.bytes;
        held.delete(seq);
      }
    }
  }

  /** Moves the message after the position to the line. Returns whether it is held. @param {Position} position */
  function moveToLine(position) {
    const message = held.get(position.seq + 1);
    if (!message) return false;
    held.delete(++position.seq);
    line.push(message);
    const { id } = message;
    if (ids.has(id) || waiting.has(id)) message.skip = REPEATED;
    else {
      waiting.add(id);
      // An answer does not wait for the handler of other messages.
      if (answer(message.payload)) message.skip = ANSWERED;
    }
    return true;
  }

  /** Moves held messages whose turn has come, and notes whether a hole is before the others. */
  function takeHeld() {
    if (!position) return;
    while (moveToLine(position));
    unhold(position.seq);
    if (held.size) holeSince = Math.min(holeSince, now);
    else if (!isBehind) holeSince = Infinity;
  }

  /** @type {(frame: any, size: number) => void} */
  function takeLive({ epoch, seq, id, payload }, size) {
    const isOther = position?.epoch !== epoch;
    if (!isOther && position && seq <= position.seq) return;
    if (!isOther && hasRoom(size)) {
      hold({ seq, id, payload, bytes: size });
      takeHeld();
    } // There is no room, or only a page says where the stream begins. The page may have been read already.
    else fallBehind();
    if (!pageBy && !syncAt && position && isOther) ask();
  }

  /** @type {(page: any, size: number) => void} */
  function takePage(page, size) {
    const isAwaited = (pageBy || syncAt) && page.n === n;
    const start = { epoch: page.epoch, seq: page.after };
    if (!position || page.reset) {
      if (!isAwaited) return;
      if (position) {
        unhold(Infinity);
        isCaughtUp = false;
        line.push({ range: null, reason: page.reset, after: { ...start } });
      } else {
        // It is stored, so that messages that expire from now on are told as a gap.
        handled = { ...start };
        store();
      }
      position = start;
    } else if (position.epoch !== page.epoch || page.after > position.seq) return;
    takeRange(position, page, size);
    takeHeld();
    // A page with a hole is an answer that never came.
    if (isAwaited && position.seq >= page.through) answered(page);
  }

  /** Moves the messages and gaps of a page to the line, up to a hole. @type {(at: Position, page: any, size: number) => void} */
  function takeRange(at, page, size) {
    for (const { seq, id, payload } of page.messages) {
      if (seq > at.seq) hold({ seq, id, payload, bytes: Math.ceil(size / page.messages.length), replayed: true });
    }
    while (at.seq < page.through) {
      if (moveToLine(at)) continue;
      const from = at.seq + 1;
      const missing = page.missing.find((/** @type {any} */ range) => range.from <= from && from <= range.to);
      if (!missing) return;
      // A message that arrived live before it expired is no gap.
      unhold(at.seq);
      at.seq = Math.min(missing.to, ...[...held.keys()].map((seq) => seq - 1));
      line.push({ range: [from, at.seq], reason: missing.reason, after: { ...at } });
    }
  }

  /** Ends a sync. @param {any} page */
  function answered(page) {
    pageBy = syncAt = failed = 0;
    isUnsupported = false;
    if (!isRegistered) emit({ effect: "registered" });
    // A new stream may not have the connection's registration, so the next sync is a hello again.
    isRegistered = !page.reset;
    if (page.reset) ask();
    else if (page.through < page.top) {
      if (hasRoom()) ask();
      else fallBehind();
    } else if (!isCaughtUp) {
      isCaughtUp = true;
      top = page.top;
      line.push({ top });
    }
  }

  /** Completes the message at the head of the line. */
  function complete() {
    const { seq, id, bytes: size, skip } = /** @type {Message} */ (line.shift());
    bytes -= size;
    if (seq === undefined || !handled) return;
    handled.seq = seq;
    if (skip === REPEATED) return;
    waiting.delete(id);
    ids.add(id);
    if (ids.size > IDS) ids.delete(/** @type {string} */ (ids.values().next().value));
    store();
  }

  /** Moves on to the next message that the handler has to handle. */
  function advance() {
    while (!isHandling && line.length) {
      const entry = line[0];
      if ("payload" in entry) {
        const { seq, id, payload, replayed } = entry;
        isHandling = !entry.skip && !emit({ effect: "deliver", epoch: handled?.epoch, seq, id, payload, replayed });
        if (!isHandling) complete();
        continue;
      }
      line.shift();
      if ("top" in entry) {
        // A slow handler may have led to this after the socket was closed, or after a newer page.
        if (isCaughtUp && entry.top === top) emit({ effect: "caught_up", epoch: handled?.epoch, top });
        continue;
      }
      const { range, reason, count, after } = entry;
      if (after) handled = after;
      emit({ effect: "gap", epoch: handled?.epoch, range, reason, count });
      if (after) store();
    }
  }

  const wakeAt = () => syncAt || pageBy || holeSince + HOLE;

  /** @type {Record<string, (event: any) => void>} */
  const events = {
    restored({ stored }) {
      if (!stored) return;
      const { epoch, seq } = stored;
      position = { epoch, seq };
      handled = { epoch, seq };
      ids = new Set(stored.ids);
    },
    opened() {
      isOpen = true;
      isRegistered = isCaughtUp = false;
      ask();
    },
    closed() {
      isOpen = isCaughtUp = false;
      pageBy = syncAt = 0;
      holeSince = Infinity;
    },
    frame({ frame, bytes: size }) {
      if (!from) return;
      if (frame.messages) takePage(frame, size);
      else takeLive(frame, size);
    },
    payload({ payload, bytes: size }) {
      const last = /** @type {Gap | undefined} */ (line.at(-1));
      if (hasRoom(size)) {
        bytes += size;
        line.push({ id: payload?.id, payload, bytes: size });
      } else if (last?.count) last.count++;
      else line.push({ range: null, reason: "dropped", count: 1 });
    },
    handled() {
      if (isHandling) complete();
      isHandling = false;
    },
    idle() {
      if ((!pageBy && !syncAt) || isUnsupported) ask();
    },
    refused() {
      if (pageBy) giveUp();
    },
    woken() {
      if (wakeAt() > now) return;
      if (pageBy) {
        pageBy = 0;
        failed++;
        if (failed >= MAX_FIRST_SYNCS && !position) giveUp();
        else if (failed % MAX_SYNCS) syncAt = now + Math.min(MAX_DELAY, 1000 * 2 ** (failed - 1));
        else emit({ effect: "reconnect" });
      } // Without room, the handler is slow.
      else if (syncAt || hasRoom() || held.size) ask();
      else holeSince = now;
    },
  };

  return {
    /** Handles an event. @type {(event: Event, at: number) => void} */
    step(event, at) {
      now = at;
      events[event.event]?.(event);
      advance();
    },
    /** Returns when the event `woken` is due. */
    wakeAt,
    /** Whether there is a mailbox, as far as is known. */
    isSupported: () => !!from && !isUnsupported,
    /** Whether a page is awaited that may never come, since the route is absent. */
    isAsking: () => pageBy > 0 && !isUnsupported,
    position: () => handled && { ...handled },
  };
}

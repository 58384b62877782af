/**
 * The log of a device's frames. The verdict on a frame is what the client did with it: which messages it gave to the
 * page, and how its position moved.
 *
 * @typedef {{ id: string, seq?: number, payload: any }} Item a message in a frame
 * @typedef {object} Entry
 * @property {Date} at
 * @property {"in" | "out" | "event"} direction
 * @property {string} title
 * @property {string} [raw] the frame
 * @property {string} verdict
 * @property {Tone} tone
 * @typedef {"good" | "plain" | "wait" | "bad"} Tone
 */

/**
 * The verdicts, each with its tone. `N` is for a number. A page of kept messages can have several.
 * @type {Record<string, Tone>}
 */
const VERDICTS = {
  shown: "good",
  held: "wait",
  "held, then shown": "good",
  duplicate: "plain",
  known: "plain",
  late: "wait",
  "not shown": "wait",
  "N shown": "good",
  "N gaps": "bad",
  "caught up": "plain",
  "nothing new": "plain",
  alive: "plain",
  "API error": "bad",
  sent: "plain",
  lost: "bad",
  gap: "bad",
};

/** Ids and requests that are remembered. */
const MAX_REMEMBERED = 1000;

/** Entries whose verdict may still change. */
const MAX_OPEN = 100;

const ENDS = new Set(["response", "complete", "error"]);

/** Adds an entry to a map, and forgets the oldest one. */
const remember = (map, key, value) => {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_REMEMBERED) map.delete(map.keys().next().value);
};

const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** Returns a short text for the payload of a message. */
export const describe = (payload) => {
  switch (payload?.type) {
    case "note":
      return payload.text;
    case "acknowledgment":
      return "Request accepted";
    case "progress":
      return `Progress ${payload.progress} %`;
    case "complete":
      return payload.result?.rows ? `Report complete: ${payload.result.rows} rows` : "Request complete";
    case "response":
      return `Response ${JSON.stringify(payload.data)}`;
    case "error":
      return `Error: ${payload.error?.message ?? payload.error?.code}`;
    default:
      return JSON.stringify(payload);
  }
};

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

const range = (from, to) => (from === to ? `#${from}` : `#${from} to #${to}`);

/** Returns the title of a frame that the device receives. */
const incomingTitle = (frame) => {
  if (frame === undefined) return "Frame that is not JSON";
  if (frame?.type === "streamer.pong") return "Pong";
  if (frame?.type === "streamer.message") return `#${frame.seq}  ${describe(frame.payload)}`;
  if (frame?.type === "streamer.page") {
    return frame.through > frame.after ? `Page ${range(frame.after + 1, frame.through)}` : "Empty page";
  }
  return describe(frame);
};

/** Returns the title of a frame that the device sends. */
const outgoingTitle = (frame) => {
  if (frame?.type === "streamer.ping") return "Ping";
  if (frame?.type === "streamer.ack") return `Acknowledgment of ${counted(frame.ids.length, "message")}`;
  if (frame?.type !== "streamer.sync") return `Request: ${frame?.type}`;
  const [{ seq, from }] = frame.streams;
  return seq === undefined ? `Sync from the ${from}` : `Sync after #${seq}`;
};

/** Returns the messages in a frame. @returns {Item[]} */
const items = (frame) => {
  if (frame?.type === "streamer.page") return frame.messages;
  if (frame?.type === "streamer.message") return [frame];
  return frame?.id ? [{ id: frame.id, payload: frame }] : [];
};

/**
 * Creates a log.
 * @param {(entry: Entry, isNew: boolean) => void} write shows a new entry, or the new verdict of an earlier one
 * @param {() => { epoch: string, seq: number } | undefined} position returns the client's position
 */
export const createFrameLog = (write, position) => {
  /** The number of the frame at which each message was shown, by id. */
  const shown = new Map();
  /** The ids that have arrived. */
  const arrived = new Map();
  /** The newest `seq` that was shown of each request, `Infinity` after its end. */
  const requests = new Map();
  /** Entries whose messages may still be shown. @type {Entry[]} */
  let open = [];
  /** The number of received frames. */
  let count = 0;

  /** @type {(direction: Entry["direction"], title: string, verdict: string, raw?: string) => Entry} */
  const add = (direction, title, verdict, raw) => {
    const entry = { at: new Date(), direction, title, verdict, tone: VERDICTS[verdict] ?? "plain", raw };
    write(entry, true);
    return entry;
  };

  /** @type {(entry: Entry, verdict: string, tone?: Tone) => void} */
  const judge = (entry, verdict, tone = VERDICTS[verdict]) => {
    entry.verdict = verdict;
    entry.tone = tone;
    write(entry, false);
  };

  const isShown = (entry) => ({ id }) => shown.get(id) >= entry.number;

  const judgePage = (entry) => {
    const { frame, items } = entry;
    const [good, gaps] = [items.filter(isShown(entry)).length, frame.missing.length];
    if (!good && !gaps) return judge(entry, position()?.seq >= frame.top ? "caught up" : "nothing new");
    const results = [good && `${good} shown`, gaps && counted(gaps, "gap")].filter(Boolean);
    judge(entry, results.join(", "), VERDICTS[gaps ? "N gaps" : "N shown"]);
  };

  const judgeKept = (entry) => {
    const { frame, before, number } = entry;
    const isOfStream = before?.epoch === frame.epoch;
    if (isShown(entry)(frame)) judge(entry, shown.get(frame.id) > number ? "held, then shown" : "shown");
    else if (entry.isRepeated || (isOfStream && frame.seq <= before.seq)) judge(entry, "duplicate");
    // A message with the same id was shown before, or another copy has ended its request.
    else if (isOfStream && position()?.seq >= frame.seq) judge(entry, "known");
    else {
      judge(entry, "held");
      open = [...open, entry].slice(-MAX_OPEN);
    }
  };

  const judgePayload = (entry) => {
    const { frame, newest = 0 } = entry;
    if (isShown(entry)(frame)) judge(entry, "shown");
    else if (entry.isRepeated) judge(entry, "duplicate");
    else if (frame?.request_id && frame.seq < newest) judge(entry, "late");
    else if (frame?.type === "acknowledgment") judge(entry, "shown");
    else judge(entry, "not shown");
  };

  const settle = (entry) => {
    const { frame } = entry;
    if (frame?.type === "streamer.pong") judge(entry, "alive");
    else if (frame?.type === "streamer.page") judgePage(entry);
    else if (frame?.type === "streamer.message") judgeKept(entry);
    else if (frame?.connectionId && !frame.type) judge(entry, "API error");
    else judgePayload(entry);
  };

  /** Notes that a message was shown, and settles the entries that have waited for it. */
  const show = (id) => {
    if (!id) return;
    remember(shown, id, count);
    const waited = open.filter((entry) => entry.items.some((item) => item.id === id));
    open = open.filter((entry) => !waited.includes(entry));
    waited.forEach(settle);
  };

  /** Frames that the client is handling. @type {Set<any>} */
  const handling = new Set();

  return {
    sent(text, isLost) {
      add("out", outgoingTitle(parse(text)), isLost ? "lost" : "sent", text);
    },

    received(text, isLost, deliver) {
      const frame = parse(text);
      if (isLost) {
        add("in", incomingTitle(frame), "lost", text);
        return;
      }
      const entry = Object.assign(add("in", incomingTitle(frame), "", text), {
        frame,
        items: items(frame),
        before: position(),
        isRepeated: arrived.has(frame?.id),
        newest: requests.get(frame?.request_id),
        number: ++count,
      });
      for (const { id } of entry.items) remember(arrived, id, true);
      handling.add(entry);
      deliver();
      // The client and the page handle a frame in microtasks, which all run before the next task.
      setTimeout(() => {
        handling.delete(entry);
        settle(entry);
      });
    },

    changed(name, code) {
      const title = { opened: "Connection opened", closed: "Connection closed", failed: "Connection failed" }[name];
      add("event", code ? `${title}, code ${code}` : title, "");
    },

    note: (title) => void add("event", title, ""),

    gap: ({ reason, from, to }) =>
      void add("event", from ? `Missing ${range(from, to)}: ${reason}` : `Missing messages: ${reason}`, "gap"),

    show,

    /** Notes the progress of a request. */
    progress({ id, request_id, seq }) {
      remember(requests, request_id, seq);
      show(id);
    },

    /** Notes that a request has ended, with a message in one of the frames that are handled or held. */
    ended(request) {
      remember(requests, request, Infinity);
      for (const entry of [...handling, ...open]) {
        for (const { id, payload } of entry.items) {
          if (payload?.request_id === request && ENDS.has(payload.type)) show(id);
        }
      }
    },
  };
};

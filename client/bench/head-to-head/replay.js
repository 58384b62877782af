/**
 * Clients that read what they have missed from a list of stored messages, after a position that is a time. The patterns
 * are common; the code is written for this comparison, with the care of a good engineer:
 *
 * - The client subscribes before it reads the list, holds live messages until the list is read, and shows each id once.
 * - It continues after the newest message that it has seen, reads to the end of the list, and retries a failed read.
 * - The list is strongly consistent, and the server pushes each message when it is stored.
 * - After a time without contact that is longer than the retention, the client reports that any message may be missing.
 */

import { reload } from "./tally.js";

/** Messages of a page. */
const PAGE = 5;
const RETRY = 1000;

const byId = (one, other) => (one.id < other.id ? -1 : 1);
const byTime = (one, other) => one.at - other.at || byId(one, other);

/** Lists messages after the last id, where ids begin with a time: ULID or UUID version 7. */
const afterId = {
  list: (messages, id) => messages.filter((message) => id === undefined || message.id > id).sort(byId).slice(0, PAGE),
  /** Returns the position after a message. */
  move: (id, message) => (id === undefined || message.id > id ? message.id : id),
  isLast: (page) => page.length < PAGE,
};

/**
 * Replays all messages since the time of the last one, this time included, so that none of the same millisecond is left
 * out.
 * @param {number} overlap milliseconds before that time which are read again, for messages that are stored late
 */
const sinceTime = (overlap) => ({
  list: (messages, at = -Infinity) => messages.filter((message) => message.at >= at - overlap).sort(byTime),
  move: (at = -Infinity, message) => Math.max(at, message.at),
  isLast: () => true,
});

/** Creates a contender of the pattern. */
const replay = ({ list, move, isLast }) => ({ window, network, random, store, isKept, retention, record }) => {
  const subscribed = new Set();
  network.accept = (peer) => {
    subscribed.add(peer);
    peer.onclose = () => subscribed.delete(peer);
  };

  const seen = new Set();
  let position;
  let socket;
  let isComplete = false;
  let attempts = 0;
  let timer;
  /** When the client last knew that it had everything: a live message came, or a read began that succeeded. */
  let contactAt = Infinity;

  const show = (message) => {
    position = move(position, message);
    if (seen.has(message.id)) return;
    seen.add(message.id);
    record.shown.push(message.id);
  };

  /** Reads the list to its end, and then shows the live messages of that time. */
  const catchUp = async (current, held) => {
    let at = position;
    while (socket === current) {
      try {
        const startedAt = window.time;
        const page = await network.request(() => list(store.filter(isKept), at));
        if (socket !== current) return;
        if (window.time - contactAt > retention) reload(record);
        contactAt = startedAt;
        page.forEach(show);
        at = page.reduce(move, at);
        if (isLast(page)) break;
      } catch {
        await new Promise((resolve) => window.setTimeout(resolve, RETRY));
      }
    }
    if (socket !== current) return;
    current.onmessage = ({ data }) => {
      contactAt = window.time;
      show(JSON.parse(data));
    };
    held.forEach(show);
    isComplete = true;
  };

  const connect = () => {
    window.clearTimeout(timer);
    const current = (socket = new network.WebSocket());
    const held = [];
    current.onmessage = ({ data }) => held.push(JSON.parse(data));
    current.onopen = () => {
      attempts = 0;
      catchUp(current, held);
    };
    current.onclose = () => {
      socket = undefined;
      isComplete = false;
      timer = window.setTimeout(connect, random() * Math.min(20_000, 1000 * 2 ** attempts++));
    };
  };
  const check = () => {
    if (socket) return;
    window.clearTimeout(timer);
    timer = window.setTimeout(connect, random() * 1000);
  };
  window.addEventListener("online", check);
  connect();
  return {
    push: (message) => subscribed.forEach((peer) => peer.send(JSON.stringify(message))),
    isComplete: () => isComplete,
    close: () => window.removeEventListener("online", check),
  };
};

export const listAfterId = replay(afterId);
export const replaySince = replay(sinceTime(0));
export const replaySinceWithOverlap = replay(sinceTime(2000));

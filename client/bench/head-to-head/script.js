/**
 * A script of messages and faults by a seed. Every client runs the same scripts.
 *
 * @typedef {{ id: string, at: number }} Message `id` begins with the time of its creation, as a ULID does
 * @typedef {{ at: number, kind: "publish", message: Message } | { at: number, kind: "lose" } |
 *   { at: number, kind: "cut", notice: number, isQuick: boolean, isRestart: boolean } |
 *   { at: number, kind: "return", isQuick: boolean, isRestart: boolean }} Step
 *   `lose`: frames are lost from now on, and neither side notices. `cut`: the client notices the end of its socket, and the
 *   server after `notice` milliseconds. `return`: connections are possible again.
 */

import { seeded } from "../random.js";

/** Longest absence of a script, in milliseconds. */
export const LONG = 25_000;
const MESSAGES = 40;
/** Time without faults at the end of a script. */
const REST = 15_000;

/** Returns an id that sorts by time, and at random within a millisecond, since there are several producers. */
const ulid = (at, random) => `${at.toString(36).padStart(8, "0")}-${Math.floor(random() * 36 ** 8).toString(36).padStart(8, "0")}`;

/** The absences of the device: what ends the connection, and for how long. */
function absences(random, add) {
  const between = (least, most) => Math.floor(least + random() * (most - least));
  const notice = () => (random() < 0.5 ? 0 : between(100, 5000));
  const away = (at, ms, { isRestart = false, isQuick = false } = {}) => {
    add(at, "cut", { notice: isRestart ? 0 : notice(), isQuick, isRestart });
    add(at + ms, "return", { isQuick, isRestart });
    return at + ms;
  };
  const kinds = {
    cut: (at) => away(at, between(300, 4000)),
    quick: (at) => away(at, 1, { isQuick: true }),
    lose(at) {
      add(at, "lose");
      return away(at + between(200, 3000), between(300, 2000));
    },
    restart: (at) => away(at, between(500, 2000), { isRestart: true }),
    long: (at) => away(at, between(LONG - 8000, LONG)),
  };
  const ends = [];
  // The connection ends before the first message.
  let at = random() < 0.3 ? kinds.cut(2000) : 2000;
  const order = ["cut", "quick", "lose", "restart", "long", "cut", "lose", "quick"].map((kind) => ({ kind, rank: random() }));
  for (const { kind } of order.sort((one, other) => one.rank - other.rank)) {
    at = kinds[kind](at + between(2000, 6000));
    ends.push(at);
  }
  // Every client has one more chance to read what it has missed.
  return { ends, end: kinds.cut(at + 8000) };
}

/**
 * @param {number} seed
 * @param {number} [late] share of messages whose producer sets id and time 0.2 to 4.2 s before they are stored. For others,
 *   it is 5 to 20 ms, the time of a commit
 */
export function createScript(seed, late = 0.15) {
  const random = seeded(seed);
  /** @type {any[]} */
  const steps = [];
  const add = (at, kind, fields) => void steps.push({ at, kind, ...fields });
  const { ends, end } = absences(random, add);
  const times = [2500, ...ends.flatMap((at) => [at + random() * 300, at + random() * 1500])];
  while (times.length < MESSAGES) {
    const at = 2500 + random() * (end - 12_000);
    times.push(at);
    // Another producer creates a message in the same millisecond.
    if (random() < 0.2) times.push(at);
  }
  for (const time of times.slice(0, MESSAGES)) {
    const at = Math.floor(time);
    // A slow producer or a retry: the message is created earlier than it is stored.
    const delay = random() < late ? 200 + random() * 4000 : 5 + random() * 15;
    add(Math.floor(at + delay), "publish", { message: { id: ulid(at, random), at } });
  }
  steps.sort((one, other) => one.at - other.at);
  return { seed, steps, end: end + REST };
}

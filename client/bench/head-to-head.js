/**
 * Streamer's client beside other clients and patterns that bring a returning device up to date: the same messages and
 * faults for each. `RUNS=1000 npm run head-to-head` has another number of scripts. All runs except those of socket.io are
 * in virtual time and have the same result each time.
 */

import { play } from "./head-to-head/play.js";
import { listAfterId, replaySince, replaySinceWithOverlap } from "./head-to-head/replay.js";
import { createScript } from "./head-to-head/script.js";
import { playSocketIo, SPEED } from "./head-to-head/socket-io.js";
import { streamer } from "./head-to-head/streamer.js";
import { sum, tally } from "./head-to-head/tally.js";

const RUNS = Number(process.env.RUNS ?? 200);
/** Scripts that run at once. More would delay the real time of socket.io on two cores. */
const AT_ONCE = 40;
const RETENTIONS = { "15 s, less than the longest absence": 15_000, "longer than any absence": 3_600_000 };

const inVirtualTime = (client) => (script, retention) => play(script, retention, client);

/** Share of messages that are stored late: none, as with a server that sets id and time when it stores a message. */
const COMMIT_DELAY = 0;

/** Functions that run a client, and the share of late messages if it isn't the default. */
const CLIENTS = {
  "streamer-client": [inVirtualTime(streamer)],
  "socket.io, recovery": [playSocketIo],
  "list after the last id": [inVirtualTime(listAfterId)],
  "since the last time": [inVirtualTime(replaySince)],
  "since 2 s earlier": [inVirtualTime(replaySinceWithOverlap)],
  "list, commit delay": [inVirtualTime(listAfterId), COMMIT_DELAY],
  "since, commit delay": [inVirtualTime(replaySince), COMMIT_DELAY],
  "since 2 s, commit delay": [inVirtualTime(replaySinceWithOverlap), COMMIT_DELAY],
};

/** Columns by the name of their count. */
const COLUMNS = {
  published: "published",
  shown: "shown",
  lost: "lost",
  reported: "reported",
  reloads: "reloads",
  falselyComplete: "false runs",
  duplicates: "twice",
  outOfOrder: "misordered",
};

const row = (name, values) => console.log(`  ${name.padEnd(24)}${values.map((value) => `${value}`.padStart(11)).join("")}`);

for (const [name, retention] of Object.entries(RETENTIONS)) {
  console.log(`${RUNS} scripts; messages are kept for ${name}`);
  row("", Object.values(COLUMNS));
  for (const [client, [run, late]] of Object.entries(CLIENTS)) {
    const tallies = [];
    for (let first = 1; first <= RUNS; first += AT_ONCE) {
      const seeds = Array.from({ length: Math.min(AT_ONCE, RUNS - first + 1) }, (_, index) => first + index);
      tallies.push(...(await Promise.all(seeds.map(async (seed) => tally(await run(createScript(seed, late), retention))))));
    }
    const total = sum(tallies);
    row(client, Object.keys(COLUMNS).map((column) => total[column]));
  }
  console.log();
}
console.log("lost: neither shown nor reported. reported: known to be missing. reloads: reports that any message may be missing.");
console.log("commit delay: all messages are stored 5 to 20 ms after their creation. Otherwise, 15 % follow after 0.2 to 4.2 s.");
console.log("false runs: scripts at whose end the client believes that it has everything, and has lost a message.");
console.log("misordered: shown after a message that was both created and stored later.");
console.log(`socket.io: real time on loopback; the script's times, pings, reconnect delays and retention are divided by ${SPEED}.`);

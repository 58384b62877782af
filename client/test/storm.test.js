import assert from "node:assert/strict";
import { test } from "node:test";
import { SCHEDULES } from "../bench/storm/schedules.js";
import { simulate } from "../bench/storm/simulation.js";

const RATE = 500;
const streamer = SCHEDULES["streamer-client"];

/** Numbers of clients with the most attempts of a client, and with the longest time as a multiple of the ideal. */
const STORMS = [[2000, 1.7, 1.1], [10_000, 5.6, 1.3], [20_000, 7.8, 1.45]];
/** Outages with the longest mean time until a client is back, in seconds. */
const OUTAGES = [[0, 1], [5, 1.5], [30, 5]];

/** Returns the bounds that a schedule exceeds. */
const exceeded = (schedule) => [
  ...STORMS.flatMap(([clients, attempts, ratio]) => {
    const { back, peak, total } = simulate(schedule, { clients, rate: RATE });
    const values = { peak: [peak, 0.9 * clients], attempts: [total, attempts * clients], time: [back(1), (ratio * clients) / RATE] };
    return Object.keys(values).filter((name) => values[name][0] > values[name][1]).map((name) => `${clients} clients: ${name}`);
  }),
  ...OUTAGES.filter(([seconds, most]) => simulate(schedule, { clients: 1000, outage: seconds * 1000 }).mean - seconds > most).map(
    ([seconds]) => `outage of ${seconds} s`,
  ),
];

test("dropped clients are back soon", () => assert.deepEqual(exceeded(streamer), []));

/** A factor of 2 has fewer attempts than Streamer, at the price of the time. */
test("bounds reject full jitter", () => {
  const some = ["2000 clients: time", "10000 clients: peak", "10000 clients: time", "20000 clients: peak", "20000 clients: time"];
  assert.deepEqual(exceeded(SCHEDULES["factor 2, full jitter"]), [...some, "outage of 5 s", "outage of 30 s"]);
  const slower = exceeded(SCHEDULES["factor 1.3, full jitter"]);
  for (const bound of ["peak", "attempts", "time"]) assert.ok(slower.includes(`10000 clients: ${bound}`), bound);
});

test("simulated gateway admits its rate", () => {
  const { back, total } = simulate(() => () => 1, { clients: 2000, rate: RATE });
  // The bucket has the connections of one second from the start.
  assert.ok(Math.abs(back(1) - 3) < 0.2, `${back(1)} s`);
  assert.ok(total > 2000);
});

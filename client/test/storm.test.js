import assert from "node:assert/strict";
import { test } from "node:test";
import { SCHEDULES } from "../bench/storm/schedules.js";
import { simulate } from "../bench/storm/simulation.js";

const RATE = 500;
const streamer = SCHEDULES["streamer-client"];

test("dropped clients are back soon", () => {
  for (const clients of [2000, 10_000, 20_000]) {
    const { back, peak, total } = simulate(streamer, { clients, rate: RATE });
    const ratio = back(1) / (clients / RATE);
    assert.ok(ratio <= 1.5, `${clients} clients: ${ratio} of the ideal`);
    assert.ok(peak <= clients, `${peak} attempts in a second`);
    assert.ok(total <= 12 * clients, `${total} attempts`);
  }
});

test("short outage costs a short wait", () => {
  for (const [seconds, most] of [[0, 1], [5, 2], [30, 6]]) {
    const { mean } = simulate(streamer, { clients: 1000, outage: seconds * 1000 });
    assert.ok(mean - seconds <= most, `${mean - seconds} s after ${seconds} s`);
  }
});

test("simulated gateway admits its rate", () => {
  const { back, total } = simulate(() => () => 1, { clients: 2000, rate: RATE });
  // The bucket has the connections of one second from the start.
  assert.ok(Math.abs(back(1) - 3) < 0.2, `${back(1)} s`);
  assert.ok(total > 2000);
});

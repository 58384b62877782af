/** Virtual time: timers and dates of the process, which advance only when a test lets them. */

import assert from "node:assert/strict";
import { mock } from "node:test";

/** The step of the clock in milliseconds for each turn of the event loop. */
const STEP = 5;

/** Milliseconds of virtual time after which a call has hung. */
const LIMIT = 600_000;

// `setImmediate` stays real: a turn of the event loop, in which sockets make progress.
export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Begins virtual time at the present. */
export function start() {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.now() });
}

/** Ends virtual time. */
export function stop() {
  mock.timers.reset();
}

/** Runs `call` in virtual time that advances with each turn of the event loop, and returns its result. Fails if it hangs. */
export async function run(call) {
  start();
  try {
    let isSettled = false;
    const result = call().finally(() => (isSettled = true));
    result.catch(() => {});
    for (let time = 0; !isSettled; time += STEP) {
      assert.ok(time < LIMIT, `the call has not settled within ${LIMIT / 1000} s`);
      await turn();
      mock.timers.tick(STEP);
    }
    return await result;
  } finally {
    stop();
  }
}

/** Runs `call` in virtual time that stands still, until the time advances by `advance(milliseconds)`. */
export async function hold(call) {
  start();
  try {
    return await call(async (milliseconds) => {
      // First, all that is due at this time.
      await turn();
      mock.timers.tick(milliseconds);
      await turn();
    });
  } finally {
    stop();
  }
}

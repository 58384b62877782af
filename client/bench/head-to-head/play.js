/** Runs a script in virtual time. */

import { Window } from "../../test/harness.js";
import { seeded } from "../random.js";
import { Network } from "./network.js";
import { newRecord } from "./tally.js";

/**
 * @param {ReturnType<typeof import("./script.js").createScript>} script
 * @param {number} retention milliseconds for which the server keeps messages
 * @param {(world: any) => { push(message: any): void, isComplete(): boolean, close(): unknown }} contend
 */
export async function play(script, retention, contend) {
  const window = new Window();
  const start = window.time;
  const numbers = seeded(script.seed);
  const network = new Network(window, numbers);
  const store = [];
  const record = newRecord();
  let isQuick = false;
  const contender = contend({
    window,
    network,
    record,
    store,
    retention,
    random: () => (isQuick ? 0 : numbers()),
    isKept: ({ storedAt }) => window.time - storedAt <= retention,
  });
  const kinds = {
    publish({ message }) {
      const stored = { ...message, storedAt: window.time };
      store.push(stored);
      record.published.push(stored);
      contender.push(stored);
    },
    lose: () => network.lose(),
    cut({ notice }) {
      isQuick = false;
      network.cut(notice);
    },
    return(step) {
      network.isUp = true;
      isQuick = step.isQuick;
      // A server that restarts is no event for a browser.
      if (!step.isRestart) window.dispatchEvent(new Event("online"));
    },
  };
  for (const step of script.steps) {
    await window.advance(start + step.at - window.time);
    kinds[step.kind](step);
  }
  await window.advance(start + script.end - window.time);
  record.isComplete = contender.isComplete();
  await contender.close();
  return record;
}

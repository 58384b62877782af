/** Runs the cases of `message/schema/client-vectors.json`, which clients in any language can share. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createStream } from "../stream.js";

export const FILE = new URL("../../message/schema/client-vectors.json", import.meta.url);

export const read = () => JSON.parse(readFileSync(FILE, "utf8"));

/** Returns the effects of each step of a case. */
export function run({ stored, steps }) {
  let effects = [];
  const epoch = () => stream.position()?.epoch;
  const push = (effect, fields) => void effects.push({ effect, ...fields });
  const stream = createStream("oldest", {
    send(type, fields) {
      push("send", { frame: { type, ...fields } });
    },
    registered: () => push("registered"),
    reconnect: () => push("reconnect"),
    unsupported: () => push("unsupported"),
    answer: () => false,
    deliver({ seq, id, data }) {
      push("deliver", { epoch: epoch(), seq, id, payload: data });
      return false;
    },
    emit(effect, value) {
      if (effect === "store") push("store", value);
      else if (effect === "caughtUp") push("caught_up", { epoch: epoch(), top: stream.position()?.seq });
      else push("gap", { epoch: epoch(), range: value.count ? [value.from, value.to] : null, reason: value.reason });
    },
  });
  if (stored) stream.step(0, "restored", structuredClone(stored));
  return steps.map(({ at, event, frame }) => {
    effects = [];
    if (event === "woken") assert.equal(stream.wakeAt(), at, "when the client wakes");
    if (event === "failed") stream.step(at, "handled", true);
    else if (event !== "frame") stream.step(at, event);
    else if (isKnown(frame)) stream.step(at, event, structuredClone(frame), JSON.stringify(frame).length);
    return structuredClone(effects);
  });
}

const isKnown = (frame) => ["streamer.message", "streamer.page"].includes(frame?.type);

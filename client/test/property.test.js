import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { World } from "./world.js";

/** Kinds of actions by weight. */
const KINDS = Object.entries({
  publish: 12, receive: 20, handle: 14, handshake: 8, wait: 6, repeat: 3, lose: 3, garbage: 2, drop: 2, stall: 1, expire: 1, reload: 1, check: 1,
}).flatMap(([kind, weight]) => Array(weight).fill(kind));

const actions = fc.array(fc.tuple(fc.constantFrom(...KINDS), fc.nat(10_000)), { maxLength: 250, size: "max" });

test("each message once, in order, or a gap", () => {
  const runs = Number(process.env.RUNS ?? 1500);
  fc.assert(
    fc.property(actions, (actions) => {
      const world = new World();
      for (const [kind, pick] of actions) world.act(kind, pick);
      world.rest();
      assert.equal(world.core.status(), "caughtUp");
      assert.equal(world.core.position().seq, world.messages.length);
      assert.deepEqual([...world.due], []);
    }),
    { numRuns: runs },
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { play } from "../bench/head-to-head/play.js";
import { listAfterId, replaySince, replaySinceWithOverlap } from "../bench/head-to-head/replay.js";
import { createScript, LONG } from "../bench/head-to-head/script.js";
import { streamer } from "../bench/head-to-head/streamer.js";
import { sum, tally } from "../bench/head-to-head/tally.js";

const scripts = (late) => Array.from({ length: 30 }, (_, seed) => createScript(seed + 1, late));
const SCRIPTS = scripts();
const KEPT = 2 * LONG;

/** Runs all scripts. */
const run = async (retention, client, scripts = SCRIPTS) => {
  const records = [];
  for (const script of scripts) records.push(await play(script, retention, client));
  return { records, total: sum(records.map(tally)) };
};

test("faults lose no kept message", async () => {
  const { total } = await run(KEPT, streamer);
  const { published, ...others } = total;
  assert.equal(published, 1200);
  assert.deepEqual(others, { shown: 1200, lost: 0, reported: 0, reloads: 0, falselyComplete: 0, incomplete: 0, duplicates: 0, outOfOrder: 0 });
});

test("expired messages are reported exactly", async () => {
  const { records, total } = await run(15_000, streamer);
  assert.ok(total.reported > 0);
  assert.equal(total.shown + total.reported, total.published);
  assert.deepEqual([total.lost, total.reloads, total.falselyComplete, total.incomplete, total.duplicates, total.outOfOrder], [0, 0, 0, 0, 0, 0]);
  for (const { shown, reported } of records) assert.ok(!shown.some((id) => reported.has(id)), "a gap with a message that was shown");
});

test("same seed has the same result", async () => {
  const [one, other] = [await run(15_000, streamer), await run(15_000, streamer)];
  assert.deepEqual(one.records, other.records);
});

test("positions that are times lose messages", async () => {
  const [byId, byTime, overlapping] = [await run(KEPT, listAfterId), await run(KEPT, replaySince), await run(KEPT, replaySinceWithOverlap)];
  for (const { total } of [byId, byTime, overlapping]) {
    assert.ok(total.lost > 0 && total.falselyComplete > 0);
    assert.deepEqual([total.reported, total.incomplete, total.duplicates, total.outOfOrder], [0, 0, 0, 0]);
  }
  // A larger overlap loses less.
  assert.ok(byTime.total.lost <= byId.total.lost && overlapping.total.lost < byTime.total.lost);
});

test("storage within a commit loses no message", async () => {
  for (const client of [listAfterId, replaySince, replaySinceWithOverlap]) {
    const { total } = await run(KEPT, client, scripts(0));
    assert.deepEqual([total.shown, total.lost, total.reloads], [total.published, 0, 0]);
  }
});

test("replay after the retention reports a reload", async () => {
  for (const client of [listAfterId, replaySince]) {
    const { total } = await run(15_000, client);
    assert.ok(total.reloads > 0 && total.reported > 0);
    assert.deepEqual([total.incomplete, total.duplicates, total.outOfOrder], [0, 0, 0]);
  }
});

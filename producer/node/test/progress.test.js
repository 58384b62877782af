import assert from "node:assert/strict";
import { test } from "node:test";
import { Message, Producer } from "../index.js";
import { hold } from "./clock.js";
import { MemoryQueue } from "./endpoint.js";

const contents = ({ bodies }) =>
  bodies.map((body) => {
    const { type, progress, result } = JSON.parse(body).payload;
    return [type, progress ?? result];
  });

function begin(queue = new MemoryQueue()) {
  const producer = new Producer("http://127.0.0.1/outbound", { client: queue, now: Date.now });
  return { queue, progress: producer.progress(Message.connection("c").request("r")) };
}

test("calls that overlap are made in order", () =>
  hold(async (advance) => {
    const { queue, progress } = begin();
    const calls = [progress.update(10), progress.update(20), progress.update(30), progress.complete("done")];
    await advance(0);
    await Promise.all(calls);
    assert.deepEqual(contents(queue), [["progress", 30], ["complete", "done"]]);
    const seqs = queue.bodies.map((body) => JSON.parse(body).request.seq);
    assert.ok(seqs[0] < seqs[1]);
  }));

test("request has one end", async () => {
  const { queue, progress } = begin();
  const ends = await Promise.allSettled([progress.complete(1), progress.fail("late", "a second end")]);
  assert.deepEqual(ends.map(({ reason }) => reason?.kind), [undefined, "ended"]);
  await assert.rejects(progress.update(100), { kind: "ended" });
  await progress.flush();
  assert.deepEqual(contents(queue), [["complete", 1]]);
});

test("at most ten updates leave per second", () =>
  hold(async (advance) => {
    const { queue, progress } = begin();
    for (let step = 0; step < 1000; step += 1) {
      await progress.update(Math.floor(step / 10));
      await advance(1);
    }
    assert.equal(queue.bodies.length, 10);
  }));

test("disposal sends the pending update", () =>
  hold(async () => {
    const { queue, progress } = begin();
    await progress.update(1);
    await progress.update(2);
    await progress[Symbol.asyncDispose]();
    assert.deepEqual(contents(queue), [["progress", 1], ["progress", 2]]);
  }));

test("update that fails uses half the time of the end", () =>
  hold(async (advance) => {
    const queue = new MemoryQueue((call, [{ MessageBody }]) => [MessageBody.includes(`"complete"`) ? "taken" : "throttled"]);
    const { progress } = begin(queue);
    progress.update(1).catch(() => {});
    const began = Date.now();
    let ended = progress.complete("done").then(() => (ended = Date.now() - began));
    while (typeof ended !== "number") await advance(100);
    // The update alone has 10 s, then 5 s as part of the end.
    assert.ok(ended >= 15_000 - 20 && ended < 16_000, `${ended} ms`);
    assert.deepEqual(contents(queue), [["complete", "done"]]);
  }));

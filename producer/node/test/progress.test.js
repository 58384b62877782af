import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Message, Producer } from "../index.js";
import { hold } from "./clock.js";
import { MemoryQueue } from "./endpoint.js";

const contents = ({ bodies }) =>
  bodies.map((body) => {
    const { type, progress, result } = JSON.parse(body).payload;
    return [type, progress ?? result];
  });

function begin(queue = new MemoryQueue(), options = {}) {
  const producer = new Producer("http://127.0.0.1/outbound", { client: queue, now: Date.now });
  return { queue, progress: producer.progress(Message.connection("c").request("r"), options) };
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

const takesEnds = () =>
  new MemoryQueue((_, [{ MessageBody }]) => [MessageBody.includes(`"complete"`) ? "taken" : "throttled"]);

/** Returns the error of a call, and the time that it takes, in virtual time. */
async function timed(call, advance) {
  const began = Date.now();
  let result;
  const settle = (error) => (result = { error, took: Date.now() - began });
  call.then(() => settle(undefined), settle);
  while (!result) await advance(10);
  return result;
}

test("update that fails uses half the time of the end", () =>
  hold(async (advance) => {
    const { queue, progress } = begin(takesEnds());
    await timed(progress.update(1), advance);
    const { took } = await timed(progress.complete("done"), advance);
    assert.ok(took >= 5000 - 20 && took < 6000, `${took} ms`);
    assert.deepEqual(contents(queue), [["complete", "done"]]);
  }));

test("end stops an update that takes too long", () =>
  hold(async (advance) => {
    const { queue, progress } = begin(takesEnds());
    const update = timed(progress.update(1), advance);
    await advance(110);
    const next = progress.update(2);
    const { took } = await timed(progress.complete("done", { timeout: 400 }), advance);
    const [{ error }] = await Promise.all([update, next]);
    assert.ok(took >= 190 && took <= 260, `${took} ms`);
    assert.deepEqual([error.kind, error.cause.message], ["aborted", "the request ends, and the update took too long"]);
    assert.deepEqual(contents(queue), [["complete", "done"]]);
  }));

test("updates at once do not delay the end", () =>
  hold(async (advance) => {
    const { queue, progress } = begin(takesEnds());
    const updates = Array.from({ length: 10 }, (_, step) => progress.update(step).catch(() => {}));
    const { took } = await timed(progress.complete("done", { timeout: 400 }), advance);
    assert.ok(took <= 400, `${took} ms`);
    await Promise.all(updates);
    assert.deepEqual(contents(queue), [["complete", "done"]]);
  }));

test("updates share the flush that is next", () =>
  hold(async (advance) => {
    const queue = new MemoryQueue(() => ["throttled"]);
    const { progress } = begin(queue);
    const updates = Array.from({ length: 10 }, (_, step) => timed(progress.update(step), advance));
    const results = await Promise.all(updates);
    assert.ok(results.every(({ error, took }) => error.kind === "timed_out" && took <= 10_100), inspect(results));
  }));

test("updates obey time limit and signal", () =>
  hold(async (advance) => {
    const producer = new Producer("http://127.0.0.1/outbound", { client: new MemoryQueue(() => ["throttled"]), now: Date.now });
    const controller = new AbortController();
    const to = Message.connection("c").request("r");
    const progress = producer.progress(to, { timeout: 300, signal: controller.signal });
    const { error, took } = await timed(progress.update(1), advance);
    assert.ok(error.kind === "timed_out" && took <= 310, `${error} after ${took} ms`);
    const flush = timed(progress.flush(), advance);
    await advance(1);
    controller.abort(new Error("left"));
    const aborted = await flush;
    assert.deepEqual([aborted.error.kind, aborted.error.cause.message], ["aborted", "left"]);
    const end = await timed(progress.complete(1), advance);
    assert.ok(end.error.kind === "timed_out" && end.took <= 310, `${end.error} after ${end.took} ms`);
  }));

test("end is sent although the job was cancelled", () =>
  hold(async (advance) => {
    const controller = new AbortController();
    const { queue, progress } = begin(new MemoryQueue(), { signal: controller.signal });
    controller.abort();
    assert.equal((await timed(progress.update(1), advance)).error.kind, "aborted");
    const { error } = await timed(progress.fail("cancelled", "the job was cancelled"), advance);
    assert.equal(error, undefined);
    assert.deepEqual(contents(queue).at(-1), ["error", undefined]);
  }));

test("end has a signal and a limit of its own", () =>
  hold(async (advance) => {
    const { progress } = begin(new MemoryQueue(() => ["throttled"]));
    for (const [kind, ...values] of [["complete", 1], ["respond", 1], ["fail", "code", "text", undefined]]) {
      const limited = await timed(progress[kind](...values, { timeout: 50 }), advance);
      assert.ok(limited.error.kind === "timed_out" && limited.took <= 60, `${kind}: ${limited.error}`);
      const aborted = await timed(progress[kind](...values, { signal: AbortSignal.abort() }), advance);
      assert.equal(aborted.error.kind, "aborted");
      await assert.rejects(progress[kind](...values, { timeout: "50" }), /`timeout` is a number/);
    }
  }));

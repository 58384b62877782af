import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Message, Producer } from "../index.js";
import { hold } from "./clock.js";
import { MemoryQueue, SilentQueue } from "./endpoint.js";

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
    for (const [answer, kind] of [["throttled", "timed_out"], ["refused", "refused"]]) {
      const queue = new MemoryQueue(() => [answer]);
      const { progress } = begin(queue);
      const results = await Promise.all(Array.from({ length: 10 }, (_, step) => timed(progress.update(step), advance)));
      assert.ok(results.every(({ error, took }) => error.kind === kind && took <= 10_100), inspect(results));
      if (answer === "refused") assert.equal(queue.calls.length, 1);
    }
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

const WAITED = "nothing was sent within 0.3 s, because an earlier update or end of this request was being sent: call it again";

test("wait for an earlier end is limited", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const { progress } = begin(queue, { timeout: 300 });
    const controller = new AbortController();
    const first = timed(progress.complete(1, { timeout: 3000 }), advance);
    await advance(0);
    const end = timed(progress.fail("x", "y", undefined, { timeout: 300 }), advance);
    const update = timed(progress.update(1), advance);
    const aborted = timed(progress.respond(1, { signal: controller.signal }), advance);
    await advance(100);
    controller.abort(new Error("left"));
    const results = [await aborted, await end, await update, await first];
    assert.deepEqual(results.map(({ error: { kind } }) => kind), ["aborted", "timed_out", "timed_out", "timed_out"]);
    const limits = [100, 300, 300, 3000];
    assert.ok(results.every(({ took }, index) => took >= limits[index] && took <= limits[index] + 80), inspect(results));
    const [{ message, cause }, ...waited] = results.map(({ error }) => error);
    assert.deepEqual([message, cause.message], ["nothing was sent, because the call was aborted before its turn", "left"]);
    assert.deepEqual([waited[0].message, waited[1].message, queue.sizes], [WAITED, WAITED, [1]]);
  }));

test("wait is part of the update's time", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const { progress } = begin(queue, { timeout: 500 });
    const first = timed(progress.update(1), advance);
    await advance(150);
    const [, { error, took }] = await Promise.all([first, timed(progress.update(2), advance)]);
    assert.ok(error.kind === "timed_out" && took >= 500 && took <= 540, `${error} after ${took} ms`);
    assert.deepEqual(queue.sizes, [1, 1]);
  }));

test("request has one end although another gave up", () =>
  hold(async (advance) => {
    const queue = new MemoryQueue();
    let answer;
    const { progress } = begin({ send: (command) => new Promise((resolve) => (answer = () => resolve(queue.send(command)))) });
    const first = timed(progress.complete(1), advance);
    await advance(0);
    await timed(progress.complete(2, { timeout: 50 }), advance);
    const third = timed(progress.complete(3), advance);
    await advance(0);
    answer();
    assert.deepEqual([(await first).error, (await third).error.kind], [undefined, "ended"]);
    assert.deepEqual(contents(queue), [["complete", 1]]);
  }));

test("aborted end leaves an update alone", () =>
  hold(async (advance) => {
    const queue = new MemoryQueue((call) => [call ? "taken" : "throttled"]);
    const { progress } = begin(queue);
    const update = timed(progress.update(1), advance);
    await advance(0);
    const controller = new AbortController();
    const end = timed(progress.complete(1, { signal: controller.signal }), advance);
    await advance(0);
    controller.abort();
    assert.deepEqual([(await end).error.kind, (await update).error], ["aborted", undefined]);
    assert.deepEqual(contents(queue), [["progress", 1]]);
  }));

test("flush without an update always succeeds", async () => {
  const { progress } = begin(new MemoryQueue(), { signal: AbortSignal.abort() });
  await progress.flush();
  await progress.complete(1);
  await progress[Symbol.asyncDispose]();
});

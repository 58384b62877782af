import assert from "node:assert/strict";
import { test } from "node:test";
import { ClosedError, RequestError } from "../index.js";
import { live, outcome, page, rig, settle } from "./harness.js";

const progress = (percent, seq, request_id = "r") => ({ type: "progress", progress: percent, request_id, seq, id: `${request_id}-${seq}` });
const complete = (result, seq = 99, request_id = "r") => ({ type: "complete", result, request_id, seq, id: `${request_id}-${seq}` });

/** Collects the progress of a job. */
const collect = (job) => {
  const shown = [];
  (async () => {
    for await (const { progress } of job) shown.push(progress);
    shown.push("end");
  })().catch((error) => shown.push(error));
  return shown;
};

test("request runs from acknowledgment to result", async () => {
  const { client, start } = rig();
  const socket = await start();
  const job = client.request({ type: "report", month: 7, request_id: "r" });
  assert.deepEqual(socket.take(), [{ type: "report", month: 7, request_id: "r" }]);
  const shown = collect(job);
  assert.equal(await outcome(job.acknowledged), "pending");
  socket.frame({ type: "acknowledgment", request_id: "r", seq: 1, id: "a" });
  assert.deepEqual(await outcome(job.acknowledged), { value: undefined });
  socket.frame(progress(40, 2));
  await settle();
  socket.frame(progress(80, 3));
  await settle();
  socket.frame(complete({ rows: 9 }, 4));
  assert.deepEqual(await job, { rows: 9 });
  await settle();
  assert.deepEqual(shown, [40, 80, "end"]);
});

test("request ids are random and unique", async () => {
  const { client, start } = rig({ random: Math.random });
  const socket = await start();
  const ids = Array.from({ length: 100 }, () => client.request({ type: "a" }).id);
  assert.equal(new Set(ids).size, 100);
  assert.deepEqual(socket.take().map(({ request_id }) => request_id), ids);
});

test("response and error end a request", async () => {
  const { client, start } = rig();
  const socket = await start();
  const [first, second, third] = ["1", "2", "3"].map((request_id) => client.request({ request_id }));
  socket.frame({ type: "response", data: null, request_id: "1", id: "a" });
  socket.frame({ type: "error", error: { code: "invalid_request", message: "no such month", details: { month: 13 } }, request_id: "2", id: "b" });
  socket.frame({ type: "error", error: null, request_id: "3", id: "c" });
  assert.deepEqual(await outcome(first), { value: null });
  const { error } = await outcome(second);
  assert.ok(error instanceof RequestError);
  assert.deepEqual([error.name, error.code, error.message, error.details], ["RequestError", "invalid_request", "no such month", { month: 13 }]);
  assert.ok((await outcome(third)).error instanceof RequestError);
  assert.deepEqual(collect(second), []);
  await settle();
  assert.equal((await outcome(second.acknowledged)).error, undefined);
});

test("slow reader gets the newest progress only", async () => {
  const { client, start } = rig();
  const socket = await start();
  const job = client.request({ request_id: "r" });
  const reader = job[Symbol.asyncIterator]();
  const first = reader.next();
  for (let at = 1; at <= 50; at++) socket.frame(progress(at, at));
  assert.equal((await first).value.progress, 50);
  for (let at = 51; at <= 60; at++) socket.frame(progress(at, at));
  assert.equal((await reader.next()).value.progress, 60);
  // Another reader begins with the newest.
  assert.equal((await job[Symbol.asyncIterator]().next()).value.progress, 60);
});

test("older answers are dropped", async () => {
  const { client, start } = rig();
  const socket = await start();
  const messages = [];
  client.on("message", ({ data }) => messages.push(data));
  const shown = collect(client.request({ request_id: "r" }));
  for (const frame of [
    progress(50, 5), progress(40, 4), { type: "acknowledgment", request_id: "r", seq: 1, id: "late" }, progress(50, 5),
    // The end counts, whatever its number.
    complete(1, 2), progress(90, 9), complete(2, 10),
  ]) {
    socket.frame(frame);
    await settle();
  }
  assert.deepEqual([shown, messages], [[50, "end"], []]);
});

test("answers without a job follow the same order", async () => {
  const { client, start } = rig({ mailbox: {} });
  const socket = await start();
  const shown = [];
  client.on("message", ({ data }) => shown.push(data.progress ?? data.result));
  for (const frame of [progress(50, 5), progress(40, 4), live(1, progress(60, 6)), live(2, complete("end", 7)), progress(70, 8), live(3, complete("again", 9))]) {
    socket.frame(frame);
    await settle();
  }
  assert.deepEqual(shown, [50, 60, "end"]);
  assert.equal(client.position.seq, 3);
});

test("payload named like a prototype is no answer", async () => {
  const { client, start } = rig();
  const socket = await start();
  const seen = [];
  client.on("message", ({ data }) => seen.push(data.type));
  client.request({ request_id: "r" });
  for (const type of ["constructor", "toString", "__proto__", "custom"]) socket.frame({ type, request_id: "r", id: type });
  await settle();
  await settle();
  assert.deepEqual(seen, ["constructor", "toString", "__proto__", "custom"]);
});

test("unanswered request is sent on each socket", async () => {
  const { client, start, sockets, next } = rig();
  const early = client.request({ request_id: "early" });
  const once = client.request({ request_id: "once" }, { resend: false });
  await start();
  const ids = (socket) => socket.take().map(({ request_id }) => request_id);
  assert.deepEqual(ids(sockets[0]), ["early", "once"]);
  const acknowledged = client.request({ request_id: "acknowledged" });
  sockets[0].frame({ type: "acknowledgment", request_id: "acknowledged", seq: 1, id: "a" });
  assert.deepEqual(ids(sockets[0]), ["acknowledged"]);
  sockets[0].drop();
  const second = await next();
  second.open();
  assert.deepEqual(ids(second), ["early"]);
  for (const request_id of ["early", "once", "acknowledged"]) second.frame(complete(request_id, 9, request_id));
  assert.deepEqual(await Promise.all([early, once, acknowledged]), ["early", "once", "acknowledged"]);
  second.drop();
  const third = await next();
  third.open();
  assert.deepEqual(ids(third), []);
});

test("resumed job gets kept answers", async () => {
  const { client, sockets } = rig({ mailbox: {} });
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  const job = client.resume("r");
  assert.equal(client.resume("r"), job);
  const shown = collect(job);
  client.connect();
  await settle();
  sockets[0].open();
  sockets[0].frame(progress(10, 1));
  await settle();
  sockets[0].frame(page(1, 0, 2, 2, { messages: [{ seq: 1, id: "m1", payload: 1 }, { seq: 2, id: "m2", payload: complete("done") }] }));
  assert.equal(await job, "done");
  await settle();
  assert.deepEqual([seen, shown, client.position.seq, client.state], [[1], [10, "end"], 2, "caughtUp"]);
});

test("kept answer does not wait for handlers", async () => {
  const { client, start } = rig({ mailbox: {} });
  client.on("message", () => new Promise(() => {}));
  const socket = await start();
  const job = client.request({ request_id: "r" });
  socket.frame(live(1));
  socket.frame(live(2, complete("done")));
  assert.equal(await job, "done");
  assert.equal(client.position.seq, 0);
});

test("job that starts late gets a waiting answer", async () => {
  const { client, start } = rig({ mailbox: {} });
  const socket = await start();
  socket.frame(live(1));
  socket.frame(live(2, complete("done")));
  await settle();
  const job = client.resume("r");
  client.on("message", () => {});
  assert.equal(await job, "done");
  await settle();
  assert.equal(client.position.seq, 2);
});

test("close rejects requests", async () => {
  const { client, start } = rig();
  await start();
  const job = client.request({ request_id: "r" });
  const shown = collect(job);
  await client.close();
  assert.ok((await outcome(job)).error instanceof ClosedError);
  assert.ok((await outcome(job.acknowledged)).error instanceof ClosedError);
  assert.ok(shown[0] instanceof ClosedError);
  assert.ok((await outcome(client.request({}))).error instanceof ClosedError);
});

test("cancelled request is not sent again", async () => {
  const { client, start, sockets, next } = rig();
  await start();
  const job = client.request({ request_id: "r" });
  job.cancel();
  assert.equal((await outcome(job)).error.message, "cancelled");
  sockets[0].frame(complete(1));
  sockets[0].drop();
  const second = await next();
  second.open();
  assert.deepEqual(second.take(), []);
  // The id is free again.
  client.request({ request_id: "r" });
  assert.equal(second.take().length, 1);
});

test("at most 1000 requests wait", async () => {
  const { client, start } = rig();
  const socket = await start();
  for (let id = 0; id < 1000; id++) client.request({ request_id: `${id}` });
  assert.ok((await outcome(client.request({}))).error instanceof RangeError);
  assert.equal(socket.take().length, 1000);
  socket.frame(complete(1, 1, "0"));
  await settle();
  assert.equal(await outcome(client.request({ request_id: "new" })), "pending");
  assert.ok((await outcome(client.request({ request_id: "new" }))).error instanceof RangeError);
});

test("token swap with requests waiting", async () => {
  let tokens = 0;
  const { client, start, next, sockets } = rig({ token: () => `t${++tokens}` });
  await start();
  sockets[0].drop();
  const job = client.request({ request_id: "r" });
  const second = await next();
  second.open();
  assert.deepEqual([second.protocols[1], second.take().length], ["t2", 1]);
  second.frame(complete("ok"));
  assert.equal(await job, "ok");
});

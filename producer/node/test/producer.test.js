import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { inspect, promisify } from "node:util";
import { test } from "node:test";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Message, Producer } from "../index.js";
import { hold, run, turn } from "./clock.js";
import { Endpoint, MemoryQueue, SilentQueue } from "./endpoint.js";

const URL = "http://127.0.0.1/outbound";
const message = (id) => Message.connection("c").id(`m${id}`).payload("s3cret");
const messages = (length) => Array.from({ length }, (_, id) => message(id));
const sizes = ({ calls }) => calls.map(({ length }) => length);

const failure = (promise) => promise.then(() => assert.fail("it was sent"), (error) => error);

test("concurrent sends share calls", async () => {
  const queue = new MemoryQueue();
  const producer = new Producer(URL, { client: queue });
  await Promise.all(messages(25).map((message) => producer.send(message)));
  assert.deepEqual(sizes(queue), [10, 10, 5]);
});

test("lone message leaves at once", () =>
  hold(async () => {
    const queue = new MemoryQueue();
    await new Producer(URL, { client: queue, now: Date.now }).send(message(1));
    assert.deepEqual(sizes(queue), [1]);
  }));

test("batch fills for 20 ms during a call", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const producer = new Producer(URL, { client: queue, now: Date.now });
    const sends = [failure(producer.send(message(0)))];
    await advance(0);
    for (let id = 1; id < 4; id += 1) {
      sends.push(failure(producer.send(message(id))));
      await advance(5);
    }
    await advance(4);
    assert.deepEqual(queue.sizes, [1]);
    await advance(1);
    assert.deepEqual(queue.sizes, [1, 3]);
    await advance(20_000);
    await Promise.all(sends);
  }));

test("eight calls are in flight at once", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const send = failure(new Producer(URL, { client: queue, now: Date.now }).sendAll(messages(200)));
    await advance(1000);
    assert.deepEqual(queue.sizes, Array(8).fill(10));
    await advance(20_000);
    await send;
  }));

test("sends over 16 MiB wait", () =>
  hold(async (advance) => {
    const large = Array.from({ length: 136 }, (_, id) => Message.connection(`c${id}`).id(`m${id}`).payload("x".repeat(131_000)));
    const producer = new Producer(URL, { client: new SilentQueue(), now: Date.now, timeout: 1000 });
    // The last one would fit, and waits for its turn.
    const sends = [...large, message(1)].map((message) => failure(producer.send(message)));
    await advance(1000);
    const causes = (await Promise.all(sends)).map(({ message }) => /buffer is full/.test(message));
    assert.deepEqual([causes.indexOf(true), causes.lastIndexOf(false)], [127, 126]);
    const next = failure(producer.send(large[0]));
    await advance(1000);
    assert.match((await next).message, /the queue has not answered/);
  }));

test("lost answers end at the time limit", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const send = failure(new Producer(URL, { client: queue, now: Date.now, random: () => 0 }).send(message(1), { timeout: 7000 }));
    await advance(4999);
    assert.deepEqual(queue.sizes, [1]);
    await advance(1);
    await advance(1);
    await advance(0);
    assert.deepEqual(queue.sizes, [1, 1]);
    await advance(2000);
    const error = await send;
    assert.equal(error.kind, "timed_out");
    const text = "the queue did not confirm the message within 7 s: the queue did not answer within 5 s; send it again with the same id";
    assert.equal(error.message, text);
    assert.ok(queue.signals.every(({ aborted }) => aborted));
  }));

test("signal ends the send and its call", async () => {
  const queue = new SilentQueue();
  const controller = new AbortController();
  const producer = new Producer(URL, { client: queue });
  const send = failure(producer.send(message(1), { signal: controller.signal }));
  await turn();
  controller.abort(new Error("left"));
  const error = await send;
  assert.deepEqual([error.kind, error.cause.message, queue.signals[0].aborted], ["aborted", "left", true]);
  const late = await failure(producer.send(message(2), { signal: controller.signal }));
  assert.deepEqual([late.kind, queue.sizes], ["aborted", [1]]);
});

test("call goes on for the sends that remain", async () => {
  const queue = new SilentQueue();
  const [one, other] = [new AbortController(), new AbortController()];
  const producer = new Producer(URL, { client: queue });
  const sends = [one, other].map(({ signal }, id) => failure(producer.send(message(id), { signal })));
  await turn();
  one.abort();
  assert.equal((await sends[0]).kind, "aborted");
  assert.deepEqual([queue.sizes, queue.signals[0].aborted], [[2], false]);
  other.abort();
  await sends[1];
  assert.equal(queue.signals[0].aborted, true);
});

test("aborted message in flight keeps its turn", () =>
  hold(async (advance) => {
    const queue = new SilentQueue();
    const producer = new Producer(`${URL}.fifo`, { client: queue, now: Date.now, timeout: 3000 });
    const controller = new AbortController();
    const to = (connection) => Message.connection(connection).payload(1);
    const sends = [producer.send(to("a"), { signal: controller.signal }), producer.send(to("b"))].map(failure);
    await advance(0);
    controller.abort();
    assert.equal((await sends[0]).kind, "aborted");
    const next = failure(producer.send(to("a"), { timeout: 9000 }));
    await advance(2999);
    assert.deepEqual(queue.sizes, [2]);
    await advance(1);
    await advance(0);
    assert.deepEqual(queue.sizes, [2, 1]);
    await advance(9000);
    await Promise.all([...sends, next]);
  }));

test("message that was given up makes way", () =>
  hold(async (advance) => {
    const queue = new MemoryQueue((_, [{ MessageBody }]) => [MessageBody.includes(`"m0"`) ? "throttled" : "taken"]);
    const producer = new Producer(`${URL}.fifo`, { client: queue, now: Date.now, random: () => 0.999 });
    const first = failure(producer.send(message(0), { timeout: 250 }));
    let isSent = false;
    const second = producer.send(message(1)).then(() => (isSent = true));
    for (let time = 0; time <= 250; time += 1) await advance(1);
    assert.match((await first).message, /within 0.25 s: RequestThrottled: scripted; send it again/);
    await advance(0);
    assert.ok(isSent);
    await second;
  }));

test("call that was given up sends no further message", async () => {
  const calls = [];
  let answer;
  const fault = Object.assign(new Error("scripted"), { name: "InvalidMessageContents", $metadata: { httpStatusCode: 400 } });
  // It does not heed the signal.
  const send = ({ input }) => {
    calls.push(input.Entries.length);
    return new Promise((_, reject) => (calls.length === 1 ? reject(fault) : (answer = () => reject(fault))));
  };
  const controller = new AbortController();
  const sent = failure(new Producer(URL, { client: { send } }).sendAll(messages(3), { signal: controller.signal }));
  await turn();
  controller.abort();
  assert.deepEqual((await sent).unsent.map(({ error: { kind } }) => kind), Array(3).fill("aborted"));
  answer();
  await turn();
  assert.deepEqual(calls, [3, 1]);
});

test("process ends with its last send", async (t) => {
  const queue = await Endpoint.open((call) => (call ? "taken" : "dropped"));
  t.after(() => queue.close());
  const script = `
    import { Message, Producer } from ${JSON.stringify(new globalThis.URL("../index.js", import.meta.url).href)};
    const producer = new Producer(${JSON.stringify(queue.url)});
    const began = Date.now();
    await producer.send(Message.connection("c").payload(1), { timeout: 200 }).catch(({ kind }) => console.log(kind));
    await producer.send(Message.connection("c").payload(1));
    process.on("exit", () => console.log(Date.now() - began));
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script], {
    cwd: new globalThis.URL("..", import.meta.url),
    env: { ...process.env, ...environmentOf(queue) },
  });
  const [kind, took] = stdout.trim().split("\n");
  assert.equal(kind, "timed_out");
  assert.ok(Number(took) < 3000, `${took} ms`);
});

const environmentOf = ({ url }) => ({
  AWS_ENDPOINT_URL_SQS: new globalThis.URL(url).origin,
  AWS_REGION: "eu-central-1",
  AWS_ACCESS_KEY_ID: "test",
  AWS_SECRET_ACCESS_KEY: "test",
  NODE_NO_WARNINGS: "1",
});

test("default client leaves retries to the producer", async (t) => {
  const times = [];
  const before = { ...process.env };
  const queue = await Endpoint.open((call) => (times.push(performance.now()), call < 3 ? { error: "InternalError" } : "taken"));
  t.after(() => {
    process.env = before;
    return queue.close();
  });
  Object.assign(process.env, environmentOf(queue));
  await new Producer(queue.url, { random: () => 0.999 }).send(message(1));
  const pauses = times.slice(1).map((time, index) => time - times[index]);
  assert.ok([95, 195, 395].every((pause, index) => pauses[index] > pause), pauses.join());
});

test("missing configuration is not retried", async (t) => {
  const before = { ...process.env };
  t.after(() => (process.env = before));
  for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name];
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: "true", HOME: "/nonexistent" });
  const credentials = { accessKeyId: "test", secretAccessKey: "s3cret" };
  const clients = {
    "there is no Region": new SQSClient({ credentials }),
    "there are no credentials": new SQSClient({ region: "eu-central-1", endpoint: "http://127.0.0.1:9" }),
  };
  for (const [cause, client] of Object.entries(clients)) {
    const error = await failure(new Producer("https://sqs.example.com/outbound", { client }).send(message(1)));
    assert.deepEqual([error.kind, error.isQueueFault], ["not_configured", true], error.message);
    assert.equal(error.message, `the queue cannot be called: ${cause}; set the client's credentials, Region and endpoint`);
  }
});

test("errors hide payloads and secrets", async (t) => {
  for (const answer of ["reset", { error: "AccessDenied" }, ["refused"], ["throttled"], "dropped"]) {
    const queue = await Endpoint.open(() => answer);
    t.after(() => queue.close());
    const error = await run(() => failure(new Producer(queue.url, { client: queue.client }).send(message(1))));
    assert.doesNotMatch(inspect(error, { depth: 9 }) + JSON.stringify(error), /s3cret|Signature|Credential/);
  }
});

test("closing waits for sends in progress", async () => {
  const queue = new MemoryQueue();
  let answer;
  const client = { send: (command) => new Promise((resolve) => (answer = () => resolve(queue.send(command)))) };
  const producer = new Producer(URL, { client });
  const send = producer.send(message(1));
  let isClosed = false;
  const close = producer[Symbol.asyncDispose]().then(() => (isClosed = true));
  await turn();
  await turn();
  assert.equal(isClosed, false);
  answer();
  await close;
  assert.deepEqual(sizes(queue), [1]);
  await send;
  const error = await failure(producer.sendAll(messages(2)));
  assert.equal(error.message, "2 of 2 messages are not on the queue; the first: m0: the producer is closed: send through another one");
  assert.deepEqual([error.total, error.unsent.map(({ index, id }) => [index, id])], [2, [[0, "m0"], [1, "m1"]]]);
  assert.ok(error.unsent[0].error.isQueueFault);
});

test("wrong arguments say the remedy", async () => {
  assert.throws(() => new Producer(process.env.NO_SUCH_QUEUE), /such as process.env.QUEUE_URL/);
  const producer = new Producer(URL, { client: new MemoryQueue() });
  await assert.rejects(producer.send(Message.connection("c")), /end the builder with its content/);
  for (const timeout of ["2000", "2 s", null, NaN, -1]) {
    assert.throws(() => new Producer(URL, { timeout }), /`timeout` is a number of milliseconds, such as 2000/);
    assert.throws(() => producer.progress(Message.connection("c").request("r"), { timeout }), /`timeout` is a number/);
    await assert.rejects(producer.send(message(1), { timeout }), /`timeout` is a number/);
  }
  assert.throws(() => producer.progress(message(1)), /^TypeError: progress takes a builder/);
  for (const minInterval of [{ milliseconds: 5 }, NaN, "100", null]) {
    assert.throws(() => producer.progress(Message.connection("c").request("r"), { minInterval }), /`minInterval` is a number/);
  }
});

test("fifo queue refuses only the tenant's message", async () => {
  const queue = new MemoryQueue();
  const all = [message(0), Message.tenant("acme").id("m1").payload(1), Message.user("acme", "anna").id("m2").payload(1)];
  const error = await failure(new Producer(`${URL}.fifo`, { client: queue }).sendAll(all));
  assert.deepEqual(error.unsent.map(({ index, error: { kind } }) => [index, kind]), [[1, "tenant_on_fifo"]]);
  assert.deepEqual(queue.bodies.map((body) => JSON.parse(body).id), ["m0", "m2"]);
});

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Message, Producer } from "../index.js";
import { Capacity } from "../capacity.js";
import { Deadline } from "../deadline.js";
import { hold, run, turn } from "./clock.js";
import { Endpoint, MemoryQueue } from "./endpoint.js";

const URL = "http://127.0.0.1/outbound";
const message = (id) => Message.connection("c").id(`m${id}`).payload(1);
const messages = (length) => Array.from({ length }, (_, id) => message(id));
const sizes = ({ calls }) => calls.map(({ length }) => length);
const failure = (promise) => promise.then(() => assert.fail("it was sent"), (error) => error);

/** A client whose n-th call fails with `errorOf(n)`, or takes the entries. */
function failing(errorOf) {
  const queue = new MemoryQueue();
  const client = {
    calls: 0,
    async send(command) {
      const error = errorOf(client.calls++);
      if (error) throw error;
      return queue.send(command);
    },
  };
  return client;
}

/** A client whose calls wait until `answer()`. */
function held() {
  const queue = new MemoryQueue();
  const client = { queue, sizes: [], answers: [] };
  client.send = async (command) => {
    client.sizes.push(command.input.Entries.length);
    await new Promise((resolve) => client.answers.push(resolve));
    return queue.send(command);
  };
  return client;
}

const named = (name, text, fields) => Object.assign(new Error(text), { name, ...fields });

test("clock skew that the SDK corrects is retried", async (t) => {
  const date = new Date(Date.now() + 3_600_000);
  const fault = { error: "InvalidSignatureException", message: "scripted", date };
  const queue = await Endpoint.open((call) => (call ? "taken" : fault));
  t.after(() => queue.close());
  await new Producer(queue.url, { client: queue.client, random: () => 0 }).send(message(1));
  assert.deepEqual(sizes(queue), [1, 1]);
});

test("other signature faults are final", async (t) => {
  const queue = await Endpoint.open(() => ({ error: "InvalidSignatureException", message: "Signature is wrong" }));
  t.after(() => queue.close());
  const error = await failure(new Producer(queue.url, { client: queue.client }).send(message(1)));
  assert.deepEqual([error.kind, error.code, error.isQueueFault], ["refused", "InvalidSignatureException", true]);
});

test("clock skew that SQS names is retried", async () => {
  for (const text of ["Signature expired: 1 is now earlier than 2", "Signature not yet current: 2 is still later than 1"]) {
    for (const name of ["InvalidSignatureException", "SignatureDoesNotMatch"]) {
      const client = failing((call) => (call ? undefined : named(name, text, { $metadata: { httpStatusCode: 400 } })));
      await new Producer(URL, { client, random: () => 0 }).send(message(1));
      assert.equal(client.calls, 2);
    }
  }
});

test("client's own retries are turned off", async (t) => {
  const times = [];
  const queue = await Endpoint.open((call) => (times.push(performance.now()), call < 2 ? { error: "InternalError" } : "taken"));
  const { endpoint, region, credentials } = queue.client.config;
  const client = new SQSClient({ endpoint, region, credentials, maxAttempts: 5 });
  t.after(() => (client.destroy(), queue.close()));
  await new Producer(queue.url, { client, random: () => 0.999 }).send(message(1));
  const pauses = times.slice(1).map((time, index) => time - times[index]);
  assert.ok(pauses.length === 2 && pauses[0] > 95 && pauses[1] > 195, pauses.join());
});

test("defect of a middleware is not retried", async (t) => {
  const queue = await Endpoint.open();
  t.after(() => queue.close());
  let calls = 0;
  queue.client.middlewareStack.add(() => () => ((calls += 1), undefined.headers), { step: "build" });
  const error = await failure(new Producer(queue.url, { client: queue.client }).send(message(1)));
  assert.deepEqual([error.kind, error.isQueueFault, calls], ["not_configured", true, 1]);
  assert.match(error.message, /^the queue cannot be called: TypeError: Cannot read .*; correct the client or its middleware$/);
  assert.ok(error.cause instanceof TypeError);
});

test("expired session is not retried", async () => {
  const text = "The SSO session associated with this profile has expired. To refresh this SSO session run aws sso login with it.";
  const client = failing(() => named("CredentialsProviderError", text));
  const error = await failure(new Producer(URL, { client }).send(message(1)));
  assert.deepEqual([error.kind, error.message, client.calls], ["not_configured", `the queue cannot be called: ${text}`, 1]);
});

test("failures without an answer are retried", async () => {
  const fetched = new TypeError("fetch failed", { cause: new Error("no connection") });
  for (const error of [fetched, named("CredentialsProviderError", "Command failed: print s3cret", { Code: "Failed" })]) {
    const client = failing((call) => (call ? undefined : error));
    await new Producer(URL, { client, random: () => 0 }).send(message(1));
    assert.equal(client.calls, 2);
    const late = await failure(new Producer(URL, { client: failing(() => error) }).send(message(1), { timeout: 30 }));
    assert.deepEqual([late.kind, late.cause], ["timed_out", error]);
    assert.doesNotMatch(late.message, /s3cret/);
  }
});

test("unreachable queue is named as such", async () => {
  const queue = await Endpoint.open();
  await queue.close();
  const error = await failure(new Producer(queue.url, { client: queue.client }).send(message(1), { timeout: 300 }));
  assert.match(error.message, /^the queue did not confirm the message within 0.3 s: no answer: connect ECONNREFUSED [0-9.:]+; send/);
  assert.equal(error.cause.code, "ECONNREFUSED");
});

test("credentials lost after an answer are retried", async () => {
  const lost = named("CredentialsProviderError", "Could not load credentials from any providers");
  const client = failing((call) => (call === 1 ? lost : undefined));
  const producer = new Producer(URL, { client, random: () => 0 });
  await producer.send(message(1));
  await producer.send(message(2));
  assert.equal(client.calls, 3);
  const error = await failure(new Producer(URL, { client: failing(() => lost) }).send(message(1)));
  assert.deepEqual([error.kind, error.cause], ["not_configured", lost]);
});

test("entries of a throttled call share the next", async (t) => {
  const queue = new MemoryQueue((call, entries) => entries.map(() => (call ? "taken" : "throttled")));
  let share = 0;
  const random = () => (share += 0.07);
  await run(() => new Producer(URL, { client: queue, now: Date.now, random }).sendAll(messages(10)));
  assert.deepEqual(sizes(queue), [10, 10]);
  // Several timers of this process may end at several times.
  const { mock: timers } = t.mock.method(globalThis, "setTimeout");
  const real = new MemoryQueue((call, entries) => entries.map(() => (call ? "taken" : "throttled")));
  await new Producer(URL, { client: real, random: () => 0.5 }).sendAll(messages(10));
  assert.deepEqual(sizes(real), [10, 10]);
  assert.equal(timers.calls.filter(({ arguments: [, delay] }) => delay === 50).length, 1);
});

test("pause ends with its last send", (t) =>
  hold(async (advance) => {
    const [timers, cleared] = ["setTimeout", "clearTimeout"].map((name) => t.mock.method(globalThis, name).mock);
    // Before the end of virtual time, whose timers these record.
    try {
      const controllers = [new AbortController(), new AbortController()];
      const client = new MemoryQueue((_, entries) => entries.map(() => "throttled"));
      const producer = new Producer(URL, { client, now: Date.now, random: () => 0.5 });
      const sends = controllers.map(({ signal }, id) => failure(producer.send(message(id), { signal })));
      await advance(0);
      const [pause] = timers.calls.filter(({ arguments: [, delay] }) => delay === 50);
      const isCleared = () => cleared.calls.some(({ arguments: [timer] }) => timer === pause.result);
      controllers[0].abort();
      await sends[0];
      assert.equal(isCleared(), false);
      controllers[1].abort();
      await sends[1];
      assert.equal(isCleared(), true);
    } finally {
      for (const mock of [timers, cleared]) mock.restore();
    }
  }));

test("fault of the queue wins over others", async () => {
  for (const codes of [["KMS.DisabledException", "InvalidMessageContents"], ["InvalidMessageContents", "KMS.DisabledException"]]) {
    const Failed = codes.map((Code, id) => ({ Id: String(id), Code, SenderFault: true }));
    const producer = new Producer(URL, { client: { send: async () => ({ Failed }) } });
    const many = Message.connections(Array.from({ length: 150 }, (_, id) => `c${id}`)).payload(1);
    const one = await failure(producer.send(many));
    const [{ error }] = (await failure(producer.sendAll([many]))).unsent;
    assert.deepEqual([one.code, error.code], ["KMS.DisabledException", "KMS.DisabledException"]);
  }
});

test("message that never left is not on the queue", () =>
  hold(async (advance) => {
    const client = held();
    const producer = new Producer(`${URL}.fifo`, { client, now: Date.now });
    const [first, controller] = [producer.send(message(0)), new AbortController()];
    const { signal } = controller;
    const [waiting, late] = [failure(producer.send(message(1), { signal })), failure(producer.send(message(2), { timeout: 50 }))];
    await advance(60);
    controller.abort();
    const texts = [await waiting, await late, await failure(producer.send(message(3), { signal }))].map(({ message }) => message);
    client.answers[0]();
    await first;
    assert.deepEqual(texts, [
      "the send was aborted, and the message is not on the queue: it is waiting behind others; send it again with the same id",
      "the message is not on the queue, because it did not leave within 0.05 s: it is waiting behind others; send it again with the same id",
      "the send was aborted, and the message is not on the queue: no attempt was made; send it again with the same id",
    ]);
    assert.deepEqual(client.sizes, [1]);
  }));

test("message in flight may be on the queue", () =>
  hold(async (advance) => {
    const controller = new AbortController();
    const send = failure(new Producer(URL, { client: held(), now: Date.now }).send(message(0), { signal: controller.signal }));
    await advance(1);
    controller.abort();
    assert.match((await send).message, /^the send was aborted, and the message may be on the queue: the queue has not answered; /);
  }));

test("confirmed message in flight is not aborted", async () => {
  const fault = named("InvalidMessageContents", "scripted", { $metadata: { httpStatusCode: 400 } });
  const refuse = () => Promise.reject(fault);
  const answers = [refuse, () => ({ Successful: [{ Id: "0" }] }), refuse, () => new Promise(() => {})];
  const controller = new AbortController();
  const producer = new Producer(URL, { client: { send: async () => answers.shift()() } });
  const sends = messages(3).map((message) => producer.send(message, { signal: controller.signal }));
  const results = Promise.allSettled(sends);
  while (answers.length) await turn();
  controller.abort();
  assert.deepEqual((await results).map(({ reason }) => reason?.kind), [undefined, "refused", "aborted"]);
});

test("short time limit has an attempt", () =>
  hold(async (advance) => {
    const client = held();
    const producer = new Producer(URL, { client, now: Date.now });
    const first = producer.send(message(0));
    await advance(1);
    const second = producer.send(message(1), { timeout: 15 });
    await advance(0);
    for (let time = 0; time < 10; time += 1) await advance(1);
    assert.deepEqual(client.sizes, [1, 1]);
    client.answers.forEach((answer) => answer());
    await Promise.all([first, second]);
  }));

test("sends share one listener of a signal", async () => {
  const client = held();
  const { signal } = new AbortController();
  const producer = new Producer(URL, { client });
  const listeners = () => getEventListeners(signal, "abort").length;
  const sends = messages(30).map((message) => producer.send(message, { signal }));
  await turn();
  assert.equal(listeners(), 1);
  client.answers.forEach((answer) => answer());
  await Promise.all(sends);
  assert.equal(listeners(), 0);
});

test("time limit may be longer than a timer", () =>
  hold(async (advance) => {
    const client = held();
    const send = new Producer(URL, { client, now: Date.now }).send(message(0), { timeout: 2 ** 31 });
    await advance(100);
    client.answers[0]();
    await send;
  }));

test("capacity returns although its wait was aborted", async () => {
  const [capacity, controller] = [new Capacity(10), new AbortController()];
  const deadline = new Deadline(10_000, controller.signal, 0);
  assert.equal(capacity.acquire(10, deadline), 10);
  const wait = capacity.acquire(10, deadline);
  controller.abort();
  capacity.release(10);
  assert.equal(await wait, undefined);
  assert.equal(capacity.acquire(10, deadline), 10);
  deadline.clear();
});

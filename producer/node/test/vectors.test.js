import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Producer, percentOf } from "../index.js";
import { hold, run } from "./clock.js";
import { Endpoint, MemoryQueue } from "./endpoint.js";
import { VECTORS, message, to, withContent, withOptions } from "./vectors.js";

/** The queue of all messages. @type {Endpoint} */
let queue;
before(async () => (queue = await Endpoint.open()));
after(() => queue.close());

const urlOf = ({ queue: kind }, { url }) => (kind === "fifo" ? `${url}.fifo` : url);

function assertRefused(error, { kind, text }) {
  assert.equal(error.kind, kind, error.stack);
  if (text) assert.equal(error.message, text);
}

/** Replaces `{id}`, `{seq}` and `{expires_at}` in an expected body by the values of the sent one, if these are valid. */
function filled(expected, sent, began, options) {
  const body = JSON.parse(sent);
  if (expected.includes("{id}")) {
    assert.match(body.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const created = parseInt(body.id.replace("-", "").slice(0, 12), 16);
    assert.ok(created >= began && created <= Date.now(), body.id);
  }
  if (expected.includes("{seq}")) assert.ok(Math.abs(body.request.seq - began * 1000) < 60_000_000, body.request.seq);
  if (expected.includes("{expires_at}")) {
    const start = body.expires_at - options.expires_in_ms;
    assert.ok(start >= began && start <= Date.now(), body.expires_at);
  }
  return expected
    .replaceAll("{id}", body.id)
    .replaceAll("{seq}", body.request?.seq)
    .replaceAll("{expires_at}", body.expires_at);
}

let lastSeq = 0;
for (const vector of VECTORS.messages) {
  test(`message: ${vector.name}`, async () => {
    const [began, first] = [Date.now(), queue.calls.length];
    const send = async () => {
      const built = withContent(withOptions(to(vector.to), vector.options), vector.content);
      await new Producer(urlOf(vector, queue), { client: queue.client }).send(built);
    };
    if (vector.refused) return assert.rejects(send, (error) => (assertRefused(error, vector.refused), true));
    await send();
    const entries = queue.calls.slice(first).flat();
    assert.equal(entries.length, vector.entries.length);
    for (const [index, { body, group, deduplication, trace }] of vector.entries.entries()) {
      const entry = entries[index];
      assert.equal(entry.MessageBody, filled(body, entry.MessageBody, began, vector.options));
      const attribute = entry.MessageSystemAttributes?.AWSTraceHeader?.StringValue;
      assert.deepEqual([entry.MessageGroupId, entry.MessageDeduplicationId, attribute], [group, deduplication, trace]);
    }
    const seqs = entries.map(({ MessageBody }) => JSON.parse(MessageBody).request?.seq);
    if (seqs[0] === undefined) return;
    assert.ok(seqs.every((seq) => seq === seqs[0] && seq > lastSeq), `${seqs} after ${lastSeq}`);
    [lastSeq] = seqs;
  });
}

/** Returns the indexes of the messages in each call, and the calls in the order of their messages. */
const indexes = ({ calls }) =>
  calls.map((entries) => entries.map(({ MessageBody }) => Number(JSON.parse(MessageBody).id.slice(1))));

for (const vector of VECTORS.batches) {
  test(`batch: ${vector.name}`, async (t) => {
    const queue = await Endpoint.open();
    t.after(() => queue.close());
    const messages = vector.bodies.map((bytes, number) => message(vector, number, bytes));
    await run(() => new Producer(urlOf(vector, queue), { client: queue.client }).sendAll(messages));
    // Concurrent calls arrive in any order.
    assert.deepEqual(indexes(queue).sort(([one], [other]) => one - other), vector.calls);
  });
}

for (const vector of VECTORS.sends) {
  test(`send: ${vector.name}`, async (t) => {
    const queue = await Endpoint.open((call) => vector.answers[call] ?? "taken");
    t.after(() => queue.close());
    const messages = Array.from({ length: vector.messages }, (_, number) => message(vector, number));
    const results = messages.map(() => "sent");
    await run(() => new Producer(urlOf(vector, queue), { client: queue.client }).sendAll(messages)).catch((error) => {
      for (const { index, error: { kind } } of error.unsent) results[index] = kind;
    });
    assert.deepEqual(indexes(queue), vector.calls);
    assert.deepEqual(results, vector.results);
  });
}

test("codes are retried as the vectors say", async (t) => {
  for (const { code, message: text, retried, queue_fault } of VECTORS.codes) {
    const queue = await Endpoint.open((call) => (call ? "taken" : { error: code, message: text }));
    t.after(() => queue.close());
    const send = run(() => new Producer(queue.url, { client: queue.client }).send(message({}, 0)));
    const error = await send.then(() => undefined, (error) => error);
    assert.equal(error === undefined, retried, `${code}: ${error}`);
    if (error) assert.deepEqual([error.kind, error.code, error.isQueueFault], ["refused", code, queue_fault], code);
  }
});

test("pauses are within those of the vectors", async () => {
  const times = [];
  const queue = new MemoryQueue((call) => {
    times.push(Date.now());
    return call < VECTORS.pauses_ms.length ? ["throttled"] : ["taken"];
  });
  const options = { client: queue, timeout: 60_000, now: Date.now, random: () => 0.999 };
  await hold(async (advance) => {
    let isSent = false;
    new Producer("http://127.0.0.1/outbound", options).send(message({}, 0)).then(() => (isSent = true));
    for (let turns = 0; !isSent && turns < 60_000; turns += 1) await advance(1);
  });
  const pauses = times.slice(1).map((time, index) => time - times[index]);
  VECTORS.pauses_ms.forEach((pause, index) => {
    assert.ok(pauses[index] > pause * 0.9 && pauses[index] <= pause + 1, `${pauses} instead of ${VECTORS.pauses_ms}`);
  });
});

test("percentages are those of the vectors", () => {
  for (const { done, total, percent } of VECTORS.percent) assert.equal(percentOf(done, total), percent, `${done} of ${total}`);
});

/** Returns a sent message as the vectors write it. */
function written(body, id) {
  const { version, id: sentId, to, request, payload, ...fields } = JSON.parse(body);
  const { id: payloadId, request_id, seq, ...content } = payload;
  return { ...fields, payload: content, has_id: sentId === id };
}

const CALLS = {
  update: (progress, { percent, message }) => progress.update(percent, message),
  flush: (progress) => progress.flush(),
  complete: (progress, result) => progress.complete(result),
  respond: (progress, data) => progress.respond(data),
  fail: (progress, { code, message }) => progress.fail(code, message),
};

for (const vector of VECTORS.progress) {
  test(`progress: ${vector.name}`, () =>
    hold(async (advance) => {
      let isFailing = false;
      const queue = new MemoryQueue((_, entries) => entries.map(() => (isFailing ? "throttled" : "taken")));
      const producer = new Producer("http://127.0.0.1/outbound", { client: queue, now: Date.now });
      const begin = () =>
        producer.progress(withOptions(to(vector.to), vector.options), { minInterval: vector.min_interval_ms });
      if (vector.refused) return assert.throws(begin, (error) => (assertRefused(error, vector.refused), true));
      const [progress, began] = [begin(), Date.now()];
      for (const { at, queue: state, refused, sent, ...step } of vector.steps) {
        await advance(began + at - Date.now());
        isFailing = state === "failing";
        const first = queue.bodies.length;
        const [[name, value]] = Object.entries(step);
        let result;
        CALLS[name](progress, value).then(() => (result = { done: true }), (error) => (result = { error }));
        await advance(0);
        while (!result) await advance(100);
        if (refused) assertRefused(result.error, refused);
        else assert.equal(result.error, undefined);
        assert.deepEqual(queue.bodies.slice(first).map((body) => written(body, vector.options.id)), sent, JSON.stringify(step));
      }
    }));
}

/** Large sends at the end of their time. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Message, Producer } from "../index.js";
import { hold } from "./clock.js";
import { MemoryQueue, SilentQueue } from "./endpoint.js";

const URL = "http://127.0.0.1/outbound";
const messages = (length) => Array.from({ length }, (_, id) => Message.connection("c").id(`m${id}`).payload(1));
const unsentOf = (send) => send.then(() => assert.fail("it was sent"), ({ unsent }) => unsent);
const connections = (length) => Message.connections(Array.from({ length }, (_, id) => `c${id}`)).payload(1);

test("large send ends at its limit", (t) =>
  hold(async (advance) => {
    const all = messages(5000);
    const encoded = t.mock.method(JSON, "stringify").mock;
    const controller = new AbortController();
    const producer = new Producer(URL, { client: new SilentQueue(), now: Date.now, timeout: 500 });
    const sends = {
      timed_out: unsentOf(producer.sendAll(all)),
      aborted: unsentOf(producer.sendAll(all, { signal: controller.signal, timeout: 60_000 })),
    };
    await advance(0);
    controller.abort();
    await advance(500);
    await producer.close();
    sends.closed = unsentOf(producer.sendAll(all));
    for (const [kind, send] of Object.entries(sends)) {
      const unsent = await send;
      assert.deepEqual(unsent.map(({ index, id }) => `${index} ${id}`), all.map(({ id }, index) => `${index} ${id}`));
      assert.ok(unsent.every(({ error }) => error.kind === kind), kind);
      assert.ok(new Set(unsent.map(({ error }) => error)).size < 200, "an error for each message");
    }
    assert.ok(encoded.callCount() < 1000, `${encoded.callCount()} values were encoded`);
    const { message } = (await sends.timed_out).at(-1).error;
    const text = "the message is not on the queue, because it did not leave within 0.5 s: no attempt was made; send it again with the same id";
    assert.equal(message, text);
  }));

test("aborted send has one error", async () => {
  const client = new SilentQueue();
  const unsent = await unsentOf(new Producer(URL, { client }).sendAll(messages(50), { signal: AbortSignal.abort() }));
  assert.deepEqual([unsent.length, new Set(unsent.map(({ error }) => error)).size, client.sizes], [50, 1, []]);
});

test("large send keeps earlier errors", () =>
  hold(async (advance) => {
    const client = new SilentQueue();
    const producer = new Producer(`${URL}.fifo`, { client, now: Date.now, timeout: 500 });
    const send = unsentOf(producer.sendAll([...messages(300), Message.tenant("acme").payload(1), ...messages(1)]));
    await advance(500);
    assert.deepEqual((await send).slice(299).map(({ error: { kind } }) => kind), ["timed_out", "tenant_on_fifo", "timed_out"]);
  }));

test("message that was sent in part is unsent", () =>
  hold(async (advance) => {
    const [taking, silent] = [new MemoryQueue(), new SilentQueue()];
    const client = { send: (...call) => (taking.calls.length ? silent : taking).send(...call) };
    const all = [...messages(1), connections(30_000), ...messages(1)];
    const send = unsentOf(new Producer(URL, { client, now: Date.now, timeout: 500 }).sendAll(all));
    await advance(500);
    assert.deepEqual((await send).map(({ index, error: { kind } }) => [index, kind]), [[1, "timed_out"], [2, "timed_out"]]);
  }));

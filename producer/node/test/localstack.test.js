/**
 * Random messages to LocalStack's SQS, through the real client of the SDK, with faults between the two. The queue holds each
 * message that it can take, and nothing else. `SQS_ENDPOINT` is the address of LocalStack.
 */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteQueueCommand,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import fc from "fast-check";
import { Message, Producer, SendAllError, SendError } from "../index.js";
import { cases } from "./cases.js";
import { FaultyClient } from "./faults.js";
import { entries, messageOf, plan, pool, progress, progressOf } from "./messages.js";

const MIB = 1024 * 1024;
const endpoint = process.env.SQS_ENDPOINT;
const skip = endpoint ? false : "without LocalStack: set SQS_ENDPOINT to its address, such as http://127.0.0.1:4566";

const credentials = { accessKeyId: "test", secretAccessKey: "test" };
const sqs = new SQSClient({ endpoint: endpoint ?? "http://127.0.0.1", region: "us-east-1", credentials });

const entryAnswer = fc.constantFrom("taken", "taken", "throttled", "unmentioned");
const answer = fc.oneof(
  { weight: 3, arbitrary: fc.constant("taken") },
  { weight: 3, arbitrary: fc.array(entryAnswer, { minLength: 10, maxLength: 10 }) },
  { weight: 3, arbitrary: fc.constantFrom("InternalError", "RequestThrottled", "InvalidMessageContents").map((error) => ({ error })) },
  { weight: 3, arbitrary: fc.constantFrom("reset", "reset_after") },
);

/** A time limit in milliseconds: mostly one that is never reached. */
const timeout = fc.oneof({ weight: 8, arbitrary: fc.constant(30_000) }, { weight: 1, arbitrary: fc.constantFrom(0, 5, 20) });

const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ send: plan, timeout }) },
  { weight: 2, arbitrary: fc.record({ sendAll: fc.array(plan, { maxLength: 15, size: "max" }), timeout }) },
  { weight: 1, arbitrary: fc.record({ progress }) },
);

const scenario = fc.record({
  isFifo: fc.boolean(),
  maxBytes: fc.constantFrom(MIB, MIB, 60_000, 5000),
  pool,
  actions: fc.array(action, { minLength: 1, maxLength: 10, size: "max" }),
  answers: fc.array(answer, { maxLength: 12, size: "max" }),
});

/** Calls `use` with the URL of a new queue, which takes messages of up to so many bytes. */
async function withQueue({ isFifo = false, maxBytes = MIB }, use) {
  const Attributes = { MaximumMessageSize: String(maxBytes), ...(isFifo ? { FifoQueue: "true" } : {}) };
  const QueueName = `node-${randomUUID()}${isFifo ? ".fifo" : ""}`;
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName, Attributes }));
  try {
    return await use(QueueUrl);
  } finally {
    await sqs.send(new DeleteQueueCommand({ QueueUrl }));
  }
}

/** Receives all messages of a queue. */
async function drain(QueueUrl) {
  const all = [];
  const options = { MaxNumberOfMessages: 10, VisibilityTimeout: 3600, MessageSystemAttributeNames: ["All"] };
  for (;;) {
    const { Messages = [] } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, ...options }));
    if (!Messages.length) return all;
    for (const { Body: body, Attributes } of Messages) {
      const { MessageGroupId: group, MessageDeduplicationId: deduplication, AWSTraceHeader: trace } = Attributes;
      all.push({ body, group, deduplication, trace });
    }
    const Entries = Messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
    await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries }));
  }
}

/** Records the messages that are sent, in the order of the calls, and their errors. */
class Recorder extends Producer {
  records = [];

  async send(message, options) {
    const record = { message };
    this.records.push(record);
    await super.send(message, options).catch((error) => {
      record.error = error;
      throw error;
    });
  }

  async sendAll(messages, options) {
    const records = messages.map((message) => ({ message }));
    this.records.push(...records);
    await super.sendAll(messages, options).catch((error) => {
      assert.ok(error instanceof SendAllError, error.stack);
      for (const { index, error: reason } of error.unsent) records[index].error = reason;
      throw error;
    });
  }
}

/** Ignores an error of a message, which is in its record. */
const settled = (sent) =>
  sent.catch((error) => assert.ok(error instanceof SendError || error instanceof SendAllError, error.stack));

const requestOf = (message) => JSON.parse(message.bodies()[0]).request?.id;

/** Makes the sends at once. Returns the expected fields of each message. */
async function play({ isFifo, pool, actions }, producer) {
  const fields = new Map();
  const build = (plan, number) => {
    const built = messageOf(plan, number, pool, isFifo);
    if (built) fields.set(built.message, built.expected);
    return built ? [built.message] : [];
  };
  const report = async ({ builder, request, expected }, { percents, result }) => {
    const handle = producer.progress(builder, { minInterval: 0, timeout: 30_000 });
    for (const percent of percents) await settled(handle.update(percent));
    await settled(handle.complete(result));
    const sent = producer.records.filter(({ message }) => requestOf(message) === request);
    assert.equal(sent.length, expected.length);
    sent.forEach(({ message }, place) => fields.set(message, expected[place]));
  };
  const sends = actions.map(async ({ send, sendAll, progress, timeout }, number) => {
    if (progress) return report(progressOf(progress, number, pool), progress);
    const messages = (sendAll ?? [send]).flatMap((plan, place) => build(plan, `${number}.${place}`));
    if (sendAll) return settled(producer.sendAll(messages, { timeout }));
    return Promise.all(messages.map((message) => settled(producer.send(message, { timeout }))));
  });
  await Promise.all(sends);
  return fields;
}

/** Sends again the messages of which the queue did not say in time whether it has them, as their errors ask for. */
async function sendAgain({ records }, producer) {
  for (const record of records.filter(({ error }) => error?.kind === "timed_out")) {
    record.isLate = true;
    record.error = await producer.send(record.message, { timeout: 30_000 }).then(() => undefined, (error) => error);
  }
}

const keyOf = ({ body, group, deduplication, trace }) => JSON.stringify([body, group, deduplication, trace]);

const append = (lists, key, value) => lists.set(key, [...(lists.get(key) ?? []), value]);

/** Compares the queue with the messages, and each error with its message. */
function check({ isFifo, maxBytes }, { records }, fields, received, { lost }) {
  const places = new Map();
  received.forEach((message, place) => append(places, keyOf(message), place));
  const groups = new Map();
  let lastSeq = 0;
  for (const { message, error, isLate } of records) {
    const expected = entries(message, fields.get(message), isFifo);
    const [{ seq } = {}] = expected;
    assert.ok(seq === undefined || seq > lastSeq, "the order of sequence numbers");
    lastSeq = seq ?? lastSeq;
    const isTooLarge = ({ bytes }) => bytes > maxBytes;
    if (!expected.length) assert.equal(error?.kind, "tenant_on_fifo");
    else if (!expected.some(isTooLarge)) assert.equal(error, undefined, error?.stack);
    else assert.match(`${error?.kind} ${error?.code}`, /^refused .*InvalidParameterValue/);
    for (const entry of expected) {
      const copies = places.get(keyOf(entry)) ?? [];
      places.delete(keyOf(entry));
      const most = isFifo ? 1 : 1 + (lost.get(entry.body) ?? 0) + (isLate ? 1 : 0);
      if (isTooLarge(entry)) assert.equal(copies.length, 0);
      else assert.ok(copies.length >= 1 && copies.length <= most, `${copies.length} copies of ${entry.body}`);
      if (isFifo && !isLate && copies.length) append(groups, entry.group, copies[0]);
    }
  }
  assert.deepEqual([...places.keys()], [], "messages that were not sent");
  for (const order of groups.values()) assert.deepEqual(order, order.toSorted((one, other) => one - other), "the order of a group");
}

test("queue holds each message that it can take", { skip }, async () => {
  await fc.assert(
    fc.asyncProperty(scenario, (scenario) =>
      withQueue(scenario, async (url) => {
        const client = new FaultyClient(sqs, scenario.answers);
        // Without pauses between attempts.
        const producer = new Recorder(url, { client, random: () => 0 });
        const fields = await play(scenario, producer);
        await sendAgain(producer, new Producer(url, { client, random: () => 0 }));
        await client.settled();
        assert.deepEqual(client.errors, [], "the queue refused a whole call");
        check(scenario, producer, fields, await drain(url), client);
      }),
    ),
    cases(50),
  );
});

test("calls have at most 1 MiB", { skip }, async () => {
  for (const [above, sizes] of [[0, [8]], [1, [7, 1]]]) {
    await withQueue({}, async (url) => {
      const client = new FaultyClient(sqs, []);
      const messages = Array.from({ length: 8 }, (_, number) => {
        const build = (bytes) => Message.connection("c").id(String(number)).payload("x".repeat(bytes));
        const bytes = MIB / 8 + (number === 7 ? above : 0);
        return build(bytes - Buffer.byteLength(build(0).bodies()[0]));
      });
      await new Producer(url, { client }).sendAll(messages);
      assert.deepEqual([client.sizes, client.errors], [sizes, []]);
      assert.deepEqual((await drain(url)).map(({ body }) => body).sort(), messages.flatMap((message) => message.bodies()).sort());
    });
  }
});

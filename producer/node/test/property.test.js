/**
 * Many sends to a queue that fails entries and calls, loses answers and throttles, through the real client of the SDK. Each
 * message that was accepted is on the queue, each other one has an error that says so, and no limit is exceeded. Each message
 * that has time after the last failure is accepted.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Message, Producer } from "../index.js";
import { cases } from "./cases.js";
import { run } from "./clock.js";
import { Endpoint } from "./endpoint.js";

const entryAnswer = fc.constantFrom("taken", "taken", "taken", "throttled", "unmentioned");
const answer = fc.oneof(
  { weight: 4, arbitrary: fc.constant("taken") },
  { weight: 4, arbitrary: fc.array(entryAnswer, { minLength: 10, maxLength: 10 }) },
  { weight: 2, arbitrary: fc.constantFrom({ error: "InternalError" }, { error: "RequestThrottled" }) },
  { weight: 2, arbitrary: fc.constantFrom("lost", "dropped", "reset", "reset_after") },
);

/** The time limit of a send in milliseconds. */
const TIMEOUT = 10_000;

/** The time in milliseconds after the last failure in which every message is sent: the longest pause, and calls. */
const RECOVERY = 4000;

/** A message for one of 3 connections, the time since the one before, and the time after which its sender gives up. */
const send = fc.record({
  connection: fc.nat(2),
  hasRequest: fc.boolean(),
  isAtFault: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  bytes: fc.oneof({ weight: 3, arbitrary: fc.nat(300) }, { weight: 1, arbitrary: fc.integer({ min: 100_000, max: 131_000 }) }),
  after: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.integer({ min: 1, max: 3000 }) }),
  abortAfter: fc.oneof({ weight: 6, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.nat(8000) }),
});

const scenario = fc.record({
  isFifo: fc.boolean(),
  sends: fc.array(send, { minLength: 1, maxLength: 40, size: "max" }),
  answers: fc.array(answer, { maxLength: 15, size: "max" }),
});

const isAtFault = ({ MessageBody }) => MessageBody.includes(`"fault`);
const numberOf = ({ MessageBody }) => Number(JSON.parse(MessageBody).id.slice(1));

/** Records the calls of a client: their messages, when they ended, and how many were in flight. */
class Recorder {
  calls = [];
  inFlight = 0;

  constructor(client) {
    this.client = client;
  }

  async send(command, options) {
    const call = { entries: command.input.Entries.map(numberOf), bytes: 0, confirmed: new Map() };
    for (const { MessageBody } of command.input.Entries) call.bytes += Buffer.byteLength(MessageBody);
    this.calls.push(call);
    this.inFlight += 1;
    call.inFlight = this.inFlight;
    const isEnded = { value: false };
    const end = () => {
      if (isEnded.value) return;
      this.inFlight -= 1;
      isEnded.value = true;
      call.endedAt = Date.now();
    };
    options.abortSignal.addEventListener("abort", end);
    try {
      const output = await this.client.send(command, options);
      for (const { Id } of output.Successful ?? []) call.confirmed.set(call.entries[Number(Id)], Date.now());
      return output;
    } finally {
      end();
    }
  }
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Makes the sends, and returns the error of each, or nothing, and the times at which it began and ended. */
async function play({ sends, isFifo }, queue, client) {
  const producer = new Producer(isFifo ? `${queue.url}.fifo` : queue.url, { client, now: Date.now });
  const results = [];
  for (const [number, { connection, hasRequest, isAtFault, bytes, after, abortAfter }] of sends.entries()) {
    if (after) await sleep(after);
    const builder = Message.connection(`c${connection}`).id(`m${number}`);
    const message = (hasRequest ? builder.request("r") : builder).payload((isAtFault ? "fault" : "") + "x".repeat(bytes));
    const controller = new AbortController();
    const timer = abortAfter === undefined ? undefined : setTimeout(() => controller.abort(), abortAfter);
    const beganAt = Date.now();
    const settled = (error) => (clearTimeout(timer), { error, beganAt, endedAt: Date.now() });
    results.push(producer.send(message, { signal: controller.signal }).then(() => settled(), settled));
  }
  const settled = await Promise.all(results);
  const { calls: { length }, inFlight } = client;
  await sleep(TIMEOUT);
  assert.deepEqual([client.calls.length, inFlight], [length, 0], "something goes on after the last send");
  return settled;
}

function check({ sends, isFifo }, settled, queue, { calls }) {
  const taken = new Set(queue.taken.map(numberOf));
  for (const [number, { error }] of settled.entries()) {
    const isConfirmed = calls.some(({ confirmed }) => confirmed.has(number));
    if (!error) assert.ok(isConfirmed && taken.has(number), `m${number} was accepted, and is not on the queue`);
    else if (error.kind === "refused") assert.ok(sends[number].isAtFault && !isConfirmed, `m${number} was refused`);
    else assert.ok(["timed_out", "aborted"].includes(error.kind), error.stack);
    if (error?.kind === "aborted") assert.notEqual(sends[number].abortAfter, undefined);
    if (sends[number].isAtFault) assert.ok(error, `m${number} is at fault`);
  }
  const attempts = sends.map((_, number) => calls.filter(({ entries }) => entries.includes(number)));
  for (const [number, made] of attempts.entries()) {
    const after = made.findIndex(({ confirmed }) => confirmed.has(number));
    assert.ok(after < 0 || after === made.length - 1, `m${number} was sent again after it was confirmed`);
  }
  for (const { entries, bytes, inFlight } of calls) {
    assert.ok(entries.length <= 10 && bytes <= 1024 * 1024 && inFlight <= 8, "a call is over the limits");
  }
  checkOrder(sends, isFifo, calls);
  checkTimes(sends, settled, calls);
}

/** No send gives up early, none takes longer than its time limit, and each is accepted when the queue has recovered. */
function checkTimes(sends, settled, calls) {
  const isFailure = ({ entries, confirmed }) =>
    confirmed.size < entries.length && entries.every((number) => !sends[number].isAtFault);
  const recoveredAt = Math.max(0, ...calls.filter(isFailure).map(({ endedAt }) => endedAt)) + RECOVERY;
  for (const [number, { error, beganAt, endedAt }] of settled.entries()) {
    const { isAtFault, abortAfter } = sends[number];
    const took = endedAt - beganAt;
    assert.ok(took <= TIMEOUT + 10, `m${number} took ${took} ms`);
    // An attempt needs 10 ms.
    if (error?.kind === "timed_out") assert.ok(took >= TIMEOUT - 10, `m${number} was given up after ${took} ms`);
    if (error?.kind === "aborted") assert.ok(took >= abortAfter, `m${number} was aborted after ${took} ms`);
    const confirmedAt = Math.min(...calls.map(({ confirmed }) => confirmed.get(number) ?? Infinity));
    if (confirmedAt < endedAt) assert.equal(error, undefined, `m${number} was confirmed`);
    const hasTime = abortAfter === undefined && beganAt + TIMEOUT > recoveredAt;
    if (!isAtFault && hasTime) assert.equal(error, undefined, `m${number} was not sent: ${error}`);
  }
}

/** Messages with the same key never overtake each other. On a FIFO queue, they share no call. */
function checkOrder(sends, isFifo, calls) {
  const keyOf = ({ connection, hasRequest }) => (isFifo || hasRequest ? connection : undefined);
  for (const key of [0, 1, 2]) {
    const ofKey = (number) => keyOf(sends[number]) === key && (isFifo || sends[number].hasRequest);
    const order = calls.map(({ entries }) => entries.filter(ofKey));
    if (isFifo) assert.ok(order.every(({ length }) => length <= 1), "a group has two messages in one call");
    const firsts = [...new Set(order.flat())];
    assert.deepEqual(firsts, [...firsts].sort((one, other) => one - other), "the order of first attempts");
    firsts.forEach((other, place) => {
      const begun = order.findIndex((numbers) => numbers.includes(other));
      for (const one of firsts.slice(0, place)) {
        const ended = order.findLastIndex((numbers) => numbers.includes(one));
        assert.ok(ended <= begun || order[begun].includes(one), `m${other} has overtaken m${one}`);
      }
    });
    if (isFifo) assert.deepEqual(order.flat(), order.flat().sort((one, other) => one - other), "the order of attempts");
  }
}

test("each message is accepted or its error says so", async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async (scenario) => {
      let scripted = 0;
      const queue = await Endpoint.open((_, entries) => {
        if (entries.some(isAtFault)) return { error: "InvalidMessageContents" };
        return scenario.answers[scripted++] ?? "taken";
      });
      const client = new Recorder(queue.client);
      try {
        const settled = await run(() => play(scenario, queue, client));
        check(scenario, settled, queue, client);
      } finally {
        await queue.close();
      }
    }),
    cases(60),
  );
});

test("call that hangs fails", async () => {
  await assert.rejects(run(() => new Promise(() => {})), /the call has not settled within 600 s/);
  for (const limit of [{ timeout: 10 }, { timeout: 200, interruptAfterTimeLimit: 10 }]) {
    let calls = 0;
    const hangs = fc.asyncProperty(fc.nat(), () => (calls++ ? new Promise(() => {}) : Promise.resolve()));
    assert.ok((await fc.check(hangs, { ...cases(2), numRuns: 2, endOnFailure: true, ...limit })).failed);
  }
});

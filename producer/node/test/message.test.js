import assert from "node:assert/strict";
import { inspect } from "node:util";
import { afterEach, mock, test } from "node:test";
import { Message, percentOf } from "../index.js";

const connection = () => Message.connection("c=").id("m");
const bodyOf = (message) => JSON.parse(message.bodies()[0]);
const refuses = (kind, text) => (error) => {
  assert.equal(error.name, "MessageError");
  assert.equal(error.kind, kind, error.message);
  if (text) assert.match(error.message, text);
  return true;
};

afterEach(() => {
  delete process.env._X_AMZN_TRACE_ID;
  delete globalThis.awslambda;
});

test("one builder serves several messages", () => {
  const reply = Message.user("acme", "anna").request("r");
  const kept = reply.id("kept").keep({ days: 1 }).receipt().complete(1);
  const [update, other] = [reply.progress(40), reply.progress(50)];
  assert.deepEqual([bodyOf(kept).keep, bodyOf(kept).receipt, bodyOf(kept).supersedable], [86400, true, undefined]);
  assert.deepEqual([bodyOf(update).keep, bodyOf(update).receipt, bodyOf(update).supersedable], [undefined, undefined, true]);
  assert.notEqual(update.id, other.id);
});

test("payload is that of the call", () => {
  const data = { rows: 1 };
  const message = connection().response(data);
  data.rows = 2;
  assert.deepEqual(bodyOf(message).payload.data, { rows: 1 });
});

test("bodies of many connections are split", () => {
  const message = Message.connections(Array.from({ length: 250 }, (_, index) => `c${index}`)).receipt().payload(1);
  const bodies = message.bodies().map((body) => JSON.parse(body));
  assert.deepEqual(bodies.map(({ to }) => to.connections.length), [100, 100, 50]);
  assert.deepEqual(bodies.map(({ receipt }) => receipt.part), ["1/3", "2/3", "3/3"]);
});

test("times without a unit are refused", () => {
  for (const time of [5, "5 s", null, undefined, {}, { secs: 5 }, { seconds: -1 }, { seconds: NaN }, { seconds: "5" }]) {
    assert.throws(() => connection().expiresIn(time), refuses("duration", /such as \{ minutes: 5 \}/), inspect(time));
    assert.throws(() => Message.user("acme", "anna").keep(time), refuses("duration"), inspect(time));
  }
  const message = Message.user("acme", "anna").keep({ days: 1, hours: 1, minutes: 1, seconds: 1, milliseconds: 999 });
  assert.equal(bodyOf(message.payload(1)).keep, 90061);
});

/** Returns a duration with fields that are not enumerable, as `Temporal.Duration` has them. */
const temporal = (units) => {
  const all = { years: 0, months: 0, weeks: 0, days: 0, hours: 0, minutes: 0, seconds: 0, milliseconds: 0, microseconds: 0, nanoseconds: 0 };
  return Object.create({ ...all, ...units });
};

test("durations of other units are refused", () => {
  const keepOf = (duration) => bodyOf(Message.user("acme", "anna").keep(duration).payload(1)).keep;
  assert.equal(keepOf(temporal({ days: 1, seconds: 1 })), 86401);
  for (const unit of ["years", "months", "weeks", "microseconds", "nanoseconds"]) {
    assert.throws(() => keepOf(temporal({ days: 1, [unit]: 1 })), refuses("duration"), unit);
  }
});

test("text is one connection", () => {
  assert.deepEqual(bodyOf(Message.connections("L0SM9c=").payload(1)).to, { connection: "L0SM9c=" });
});

test("expiry is a date or milliseconds", () => {
  const expiry = (time) => bodyOf(connection().expiresAt(time).payload(1)).expires_at;
  assert.deepEqual([expiry(new Date(1795791600000)), expiry(1795791600000.5)], [1795791600000, 1795791600000]);
  assert.deepEqual([expiry(Infinity), expiry(Number.MAX_SAFE_INTEGER)], [253402300799999, 253402300799999]);
  for (const seconds of [1795791600, new Date(1795791600), 0, -1]) {
    assert.throws(() => expiry(seconds), refuses("expiry", /multiply it by 1000/), inspect(seconds));
  }
  for (const other of ["2026-11-30", "1795791600000", new Date(NaN), NaN, null, undefined]) {
    assert.throws(() => expiry(other), refuses("expiry", /is not a time/), inspect(other));
  }
});

test("lone surrogates never change silently", () => {
  for (const id of ["a\ud800", "\udc00a"]) {
    assert.throws(() => connection().id(id), refuses("id", /this one has a lone surrogate/));
    assert.throws(() => Message.user("acme", id), refuses("id", /this one has a lone surrogate/));
    const value = connection().payload(id);
    const text = connection().json(`"${id}"`);
    for (const message of [value, text]) {
      const [body] = message.bodies();
      assert.equal(Buffer.from(body).toString(), body);
      assert.equal(JSON.parse(body).payload, id);
    }
  }
});

test("ids of other types are refused", () => {
  for (const id of [7, null, undefined, {}]) {
    assert.throws(() => connection().id(id), refuses("id", new RegExp(`has type ${typeof id}$`)));
    assert.throws(() => Message.connection(id), refuses("id"));
    assert.throws(() => Message.tenant(id), refuses("id"));
  }
});

test("values without JSON are refused", () => {
  const circular = {};
  circular.self = circular;
  const broken = { toJSON: () => assert.fail("s3cret") };
  const absent = [undefined, () => {}, Symbol("s"), { toJSON: () => undefined }, Promise.resolve(1)];
  for (const value of [...absent, 1n, circular, broken]) {
    for (const build of ["payload", "response", "complete"]) {
      assert.throws(() => connection()[build](value), refuses("payload_not_json"), inspect(value));
    }
    if (value === undefined) continue;
    assert.throws(() => connection().progress(1, "text", value), refuses("payload_not_json"), inspect(value));
    assert.throws(() => connection().error("code", "text", value), refuses("payload_not_json"), inspect(value));
  }
  assert.deepEqual(bodyOf(connection().response(new Date(0))).payload.data, "1970-01-01T00:00:00.000Z");
});

test("errors of values name type and cause", () => {
  const text = (cause) => `the payload cannot be written as JSON${cause}`;
  assert.throws(() => connection().payload(() => {}), { message: text(", because it has the type function") });
  assert.throws(() => connection().response(Promise.resolve()), { message: text(", because it has the type promise: await it first") });
  assert.throws(() => connection().payload(1n), (error) => error.cause instanceof TypeError && error.message === text(": see the error's cause"));
  // The error of `JSON.parse` repeats the text.
  assert.throws(() => connection().json("s3cret"), (error) => !inspect(error).includes("s3cret"));
});

test("values of other types are refused", () => {
  assert.throws(() => connection().error("code"), refuses("text", /^`message` must be text, got type undefined$/));
  assert.throws(() => connection().acknowledgment({}), refuses("text"));
  assert.throws(() => connection().json(null), refuses("text", /got null$/));
  assert.throws(() => connection().json(7), refuses("text"));
  assert.throws(() => connection().trace(null), refuses("text", /^`trace` must be text, got null$/));
  for (const flag of ["false", 1, null, undefined]) {
    assert.throws(() => connection().supersedable(flag), refuses("flag", /^`supersedable` must be true or false, got /));
  }
});

test("percentages are whole numbers", () => {
  for (const percent of [33.3, -1, NaN, "40", Infinity]) assert.throws(() => connection().progress(percent), refuses("percent"));
  const text = /^percent must be a whole number from 0 to 100, got 33.3: round it, or use percentOf$/;
  assert.throws(() => connection().progress(33.3), refuses("percent", text));
  assert.throws(() => connection().progress("40"), refuses("percent", /a whole number from 0 to 100, got type string$/));
});

test("percentages of fractions are exact", () => {
  for (const [done, total, percent] of [[0.99, 1, 99], [1.5, 3, 50], [0.29, 1, 29], [1e-7, 1, 0], [1e300, 2e300, 50], [5e-324, 1e308, 0]]) {
    assert.equal(percentOf(done, total), percent, `${done} of ${total}`);
  }
  assert.deepEqual([percentOf(0, -1), percentOf(-1, 3), percentOf(-2, -1), percentOf(7, 0.5)], [100, 0, 100, 100]);
  for (const [done, total] of [[NaN, 1], [1, NaN], [Infinity, 1], [0, Infinity], ["1", 2], [1, null], [1n, 2n]]) {
    assert.throws(() => percentOf(done, total), refuses("percent", /^a percentage needs finite numbers, got /));
  }
});

test("lambda's trace header is the default", async () => {
  const { fieldsOf } = await import("../message.js");
  const traceOf = (builder) => fieldsOf(builder.payload(1)).trace;
  assert.equal(traceOf(connection()), undefined);
  process.env._X_AMZN_TRACE_ID = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
  assert.equal(traceOf(connection()), process.env._X_AMZN_TRACE_ID);
  assert.equal(traceOf(connection().trace("Root=other")), "Root=other");
  // The store of a runtime that handles several invocations at once.
  globalThis.awslambda = { InvokeStore: { getXRayTraceId: () => "Root=own" } };
  assert.equal(traceOf(connection()), "Root=own");
});

test("printed messages hide the payload", () => {
  const message = connection().response("s3cret");
  assert.doesNotMatch(inspect(message, { depth: 9, showHidden: true }) + JSON.stringify(message) + String(message), /s3cret/);
  const large = () => connection().response("s3cret".repeat(30_000));
  assert.throws(large, (error) => !inspect(error, { depth: 9 }).includes("s3crets3cret"));
});

test("seq increases although the clock does not", () => {
  const seqs = Array.from({ length: 5000 }, () => bodyOf(connection().request("r").payload(1)).request.seq);
  assert.ok(seqs.every((seq, index) => index === 0 || seq > seqs[index - 1]));
});

test("seq increases although the clock is set back", () => {
  const seq = () => bodyOf(connection().request("r").payload(1)).request.seq;
  mock.timers.enable({ apis: ["Date"], now: Date.now() + 3_600_000 });
  const before = seq();
  mock.timers.reset();
  assert.equal(seq(), before + 1);
});

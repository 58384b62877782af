import assert from "node:assert/strict";
import { inspect } from "node:util";
import { afterEach, test } from "node:test";
import { Message, percentOf } from "../index.js";

const connection = () => Message.connection("c=").id("m");
const bodyOf = (message) => JSON.parse(message.bodies()[0]);
const refuses = (kind, text) => (error) => {
  assert.equal(error.name, "MessageError");
  assert.equal(error.kind, kind, error.message);
  if (text) assert.match(error.message, text);
  return true;
};

afterEach(() => delete process.env._X_AMZN_TRACE_ID);

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
  for (const value of [undefined, 1n, circular, () => {}, Symbol("s")]) {
    assert.throws(() => connection().payload(value), refuses("payload_not_json"));
  }
  assert.throws(() => connection().response(undefined), refuses("payload_not_json"));
  assert.throws(() => connection().error("code"), refuses("text", /`message` must be text, got type undefined/));
  assert.throws(() => connection().acknowledgment({}), refuses("text"));
});

test("percentages are whole numbers", () => {
  for (const percent of [33.3, -1, NaN, "40", Infinity]) assert.throws(() => connection().progress(percent), refuses("percent"));
  assert.throws(() => connection().progress(33.3), refuses("percent", /round it, or use percentOf$/));
  assert.deepEqual([percentOf(0, -1), percentOf(-1, 3), percentOf(1.5, 3)], [100, 0, 33]);
});

test("lambda's trace header is the default", async () => {
  const { fieldsOf } = await import("../message.js");
  const traceOf = (builder) => fieldsOf(builder.payload(1)).trace;
  assert.equal(traceOf(connection()), undefined);
  process.env._X_AMZN_TRACE_ID = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
  assert.equal(traceOf(connection()), process.env._X_AMZN_TRACE_ID);
  assert.equal(traceOf(connection().trace("Root=other")), "Root=other");
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

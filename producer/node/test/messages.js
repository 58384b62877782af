/** Random messages, and what the queue holds for them: written without the library, except for the order of JSON fields. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { entriesOf } from "../entry.js";
import { Message, MessageError } from "../index.js";
import { fieldsOf } from "../message.js";

const PAYLOAD = 128 * 1024;
const KEPT_PAYLOAD = 127 * 1024;
export const TRACE = "Root=1-65a1b2c3-0123456789abcdef01234567;Sampled=1";

/** Characters that JSON, SQS, UTF-8 or the ids of SQS treat in a special way. */
const SPECIAL = [..."\0\v\u001f\u007f\u0085\u2028\ufdd0\ufffd\ufffe\uffff\u{10ffff}\"\\/%#: é👩"];
const character = fc.oneof(
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
  fc.constantFrom(...SPECIAL),
  // Those that only the library escapes.
  fc.constantFrom("\ufffe", "\uffff"),
);
const anyCharacter = fc.oneof({ weight: 9, arbitrary: character }, { weight: 1, arbitrary: fc.constantFrom("\ud800", "\udfff") });
const text = fc.string({ unit: anyCharacter, maxLength: 30 });
const id = (maxLength, unit = character) => fc.string({ unit, minLength: 1, maxLength, size: "max" });
const isMisleading = (character) => /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u.test(character);
// 64 characters may have 256 bytes, which is the limit.
const principal = id(64, character.filter((character) => !isMisleading(character)));

/** The ids that the messages of a scenario share. */
export const pool = fc.record({
  connections: fc.uniqueArray(id(128).filter((id) => id !== "." && id !== ".."), { minLength: 3, maxLength: 3 }),
  tenants: fc.array(principal, { minLength: 2, maxLength: 2 }),
  users: fc.array(principal, { minLength: 2, maxLength: 2 }),
  requests: fc.array(id(128), { minLength: 2, maxLength: 2 }),
});

const bit = fc.nat(1);

const audience = fc.oneof(
  { weight: 4, arbitrary: fc.record({ connections: fc.uniqueArray(fc.nat(2), { minLength: 1, maxLength: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ many: fc.constantFrom(12, 99, 100, 101, 205) }) },
  { weight: 4, arbitrary: fc.record({ user: bit, tenant: bit }) },
  { weight: 1, arbitrary: fc.record({ tenant: bit }) },
);

const json = fc.jsonValue({ stringUnit: anyCharacter, maxDepth: 2 });

/** The bytes of characters in a message. */
const BYTES = { x: 1, "é": 2, "👩": 4, "\ufffe": 6, "\0": 6, "\ud800": 6 };

/** A text by one of its characters, and the number of bytes by which its JSON exceeds the limit. */
const large = fc.record({
  unit: fc.constantFrom("x", "x", ...Object.keys(BYTES)),
  over: fc.oneof(fc.constantFrom(0, 1), fc.integer({ min: -6, max: 6 }), fc.integer({ min: -PAYLOAD, max: -1000 })),
});

const content = fc.oneof(
  { weight: 3, arbitrary: fc.record({ payload: json }) },
  { weight: 2, arbitrary: fc.record({ response: json }) },
  { weight: 1, arbitrary: fc.record({ json }) },
  { weight: 1, arbitrary: fc.record({ error: fc.tuple(text, text) }) },
  { weight: 2, arbitrary: fc.record({ large }) },
);

const optional = (arbitrary) => fc.option(arbitrary, { nil: undefined });

export const plan = fc.record({
  to: audience,
  id: optional(id(120)),
  request: optional(bit),
  expiresAt: optional(fc.date({ min: new Date("2000-01-01"), max: new Date("9999-12-31"), noInvalidDate: true })),
  keep: optional(fc.integer({ min: 60, max: 2_592_000 })),
  receipt: fc.boolean(),
  supersedable: optional(fc.boolean()),
  fairTenant: optional(bit),
  isTraced: fc.boolean(),
  content,
});

/** A request of its own, its updates in percent, and its result. */
export const progress = fc.record({
  to: fc.oneof(fc.record({ connections: fc.tuple(fc.nat(2)) }), fc.record({ user: bit, tenant: bit })),
  request: id(100),
  percents: fc.array(fc.nat(100), { maxLength: 4 }).map((percents) => percents.sort((one, other) => one - other)),
  result: json,
});

/** Returns the recipients of an audience. A large one has fewer connections on a FIFO queue, where each is a message. */
function recipientsOf({ connections, many, user, tenant }, pool, isFifo) {
  if (many) return { connections: Array.from({ length: isFifo ? 12 : many }, (_, number) => `c${number}`) };
  if (connections) return { connections: connections.map((index) => pool.connections[index]) };
  if (user === undefined) return { tenant: pool.tenants[tenant] };
  return { user: { tenant: pool.tenants[tenant], user: pool.users[user] } };
}

function builderFor(to) {
  if (to.connections) return Message.connections(to.connections);
  return to.user ? Message.user(to.user.tenant, to.user.user) : Message.tenant(to.tenant);
}

/** Returns the builder of the n-th progress, and the expected fields of its messages. */
export function progressOf(plan, number, pool) {
  const to = recipientsOf(plan.to, pool, false);
  const request = `${number}:${plan.request}`;
  const updates = plan.percents.map((progress) => ({ to, request, supersedable: true, client: { type: "progress", progress } }));
  const end = { to, request, client: { type: "complete", result: plan.result } };
  return { builder: builderFor(to).request(request), request, expected: [...updates, end] };
}

const largeText = ({ unit, over }, limit) => {
  const bytes = BYTES[unit];
  const count = Math.max(0, Math.floor((limit - 2 + over) / bytes));
  return { text: unit.repeat(count), bytes: 2 + count * bytes };
};

/** Writes the lone surrogates of JSON text as such. */
const unescaped = (json) =>
  json.replace(/\\(\\|u(d[89a-f]..))/g, (escape, _, code) => (code ? String.fromCharCode(parseInt(code, 16)) : escape));

/** Builds the n-th message. Returns it with its expected fields, or nothing if it is too large, as its error says. */
export function messageOf(plan, number, pool, isFifo) {
  const to = recipientsOf(plan.to, pool, isFifo);
  const expected = {
    to,
    id: plan.id === undefined ? undefined : `${number}:${plan.id}`,
    request: pool.requests[plan.request],
    supersedable: plan.supersedable || undefined,
    expires_at: plan.expiresAt?.getTime(),
    keep: to.user ? plan.keep : undefined,
    receipt: plan.receipt || undefined,
    trace: plan.isTraced ? TRACE : undefined,
    fairTenant: pool.tenants[plan.fairTenant],
  };
  let builder = builderFor(to);
  if (expected.id !== undefined) builder = builder.id(expected.id);
  if (expected.request !== undefined) builder = builder.request(expected.request);
  if (plan.supersedable !== undefined) builder = builder.supersedable(plan.supersedable);
  if (plan.expiresAt) builder = builder.expiresAt(plan.expiresAt);
  if (expected.keep !== undefined) builder = builder.keep({ seconds: expected.keep });
  if (plan.receipt) builder = builder.receipt();
  if (plan.isTraced) builder = builder.trace(TRACE);
  if (expected.fairTenant !== undefined) builder = builder.fairQueueTenant(expected.fairTenant);
  const message = withContent(builder, plan.content, expected);
  return message && { message, expected };
}

/** Builds a message, and adds its content to the expected fields. */
function withContent(builder, content, expected) {
  const [[kind, value]] = Object.entries(content);
  if (kind === "response") {
    expected.client = { type: "response", data: value };
    return builder.response(value);
  }
  if (kind === "error") {
    const [code, message] = value;
    expected.client = { type: "error", error: { code, message } };
    return builder.error(code, message);
  }
  if (kind === "large") return withLarge(builder, value, expected);
  expected.payload = value;
  return kind === "json" ? builder.json(` ${unescaped(JSON.stringify(value))}\n`) : builder.payload(value);
}

function withLarge(builder, value, expected) {
  const limit = expected.keep === undefined ? PAYLOAD : KEPT_PAYLOAD;
  const { text, bytes } = largeText(value, limit);
  if (bytes <= limit) {
    expected.payload = text;
    return builder.payload(text);
  }
  const kind = bytes > PAYLOAD ? "payload_too_large" : "kept_payload";
  assert.throws(() => builder.payload(text), (error) => error instanceof MessageError && error.kind === kind);
  return undefined;
}

/** Encodes a part of a group or deduplication id, byte by byte. */
const encode = (text) =>
  Array.from(Buffer.from(text), (byte) => {
    const isPlain = byte > 0x20 && byte < 0x7f && !"%#:".includes(String.fromCharCode(byte));
    return isPlain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");

const fit = (id) => (id.length > 128 ? createHash("sha256").update(id).digest("hex") : id);

function idsOf({ to, id }, fairTenant, isFifo) {
  if (!isFifo) {
    const tenant = to.user?.tenant ?? to.tenant ?? fairTenant;
    return { group: tenant === undefined ? undefined : fit(encode(tenant)) };
  }
  const recipient = to.user ? `${encode(to.user.tenant)}#${encode(to.user.user)}` : encode(to.connection);
  return { group: fit(recipient), deduplication: fit(`${encode(id)}:${recipient}`) };
}

/** Returns the value that JSON makes of a value. */
const normal = (value) => JSON.parse(JSON.stringify(value));

/** Checks the bodies of a message against its expected fields. Returns its entries on the queue. */
export function entries(message, expected, isFifo) {
  if (isFifo && expected.to.tenant) return [];
  const bodies = isFifo ? Array.from(entriesOf(fieldsOf(message), true), ({ body }) => body) : message.bodies();
  const size = isFifo ? 1 : 100;
  const { connections } = expected.to;
  assert.equal(bodies.length, connections ? Math.ceil(connections.length / size) : 1);
  return bodies.map((body, place) => {
    const fields = JSON.parse(body);
    const ids = connections?.slice(place * size, (place + 1) * size);
    const to = ids ? (ids.length === 1 ? { connection: ids[0] } : { connections: ids }) : expected.to;
    const { id } = message;
    const seq = fields.request?.seq;
    const payload = expected.client ? { ...expected.client, request_id: expected.request, id, seq } : expected.payload;
    const receipt = expected.receipt && (bodies.length === 1 ? true : { part: `${place + 1}/${bodies.length}` });
    const request = expected.request === undefined ? undefined : { id: expected.request, seq };
    const { supersedable, expires_at, keep } = expected;
    const all = { version: 1, id: expected.id ?? id, to, payload, request, supersedable, expires_at, keep, receipt };
    assert.deepEqual(fields, normal(all));
    assert.equal(request === undefined, seq === undefined);
    return { body, seq, bytes: Buffer.byteLength(body), trace: expected.trace, ...idsOf(fields, expected.fairTenant, isFifo) };
  });
}

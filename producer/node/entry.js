/** The messages on the queue that a message needs. */

import { createHash } from "node:crypto";
import { bytesOf, escapeForQueue } from "./json.js";
import { CONNECTIONS } from "./limits.js";

/**
 * @typedef {{ connections: readonly string[] } | { user: { tenant: string, user: string } } | { tenant: string }} Recipients
 */

/**
 * A message's fields, as the queue gets them.
 * @typedef {object} Fields
 * @property {Recipients} to
 * @property {string} [fairQueueTenant]
 * @property {string} id
 * @property {string} payload JSON text
 * @property {{ id: string, seq: number }} [request]
 * @property {boolean} supersedable
 * @property {number} [expiresAt] milliseconds since the epoch
 * @property {number} [keep] seconds
 * @property {boolean} receipt
 * @property {string} [trace]
 */

/**
 * One message on the queue.
 * @typedef {object} Entry
 * @property {string} body
 * @property {number} bytes its size as SQS counts it: without system attributes, such as the trace header. Source:
 *   <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
 * @property {string} [group]
 * @property {string} [deduplication]
 * @property {string} [trace]
 * @property {string} [key] Entries with the same key keep their order.
 */

/**
 * The recipients of one message on the queue, as its JSON.
 * @typedef {{ connection: string } | { connections: string[] } | { user: { tenant: string, user: string } } | { tenant: string }} Audience
 */

/**
 * Maximum number of characters of a message group id or deduplication id. Source: "Message group ID" in
 * <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
 */
const ID_CHARACTERS = 128;

/** The characters that are encoded in a part of an id: those that SQS refuses, `%`, and the separators of parts. */
const ENCODED = /[^!-~]|[%#:]/gu;

/** @param {string} part */
const encode = (part) => part.replace(ENCODED, encodeCharacter);

/** @param {string} character */
const encodeCharacter = (character) =>
  Array.from(Buffer.from(character), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");

/** Returns the id, or its SHA-256 if it is too long for SQS. @param {string} id */
const fit = (id) => (id.length <= ID_CHARACTERS ? id : createHash("sha256").update(id).digest("hex"));

/**
 * Returns the entries of a message: one for each 100 connections. On a FIFO queue, where a connection's messages are a
 * message group, one for each connection.
 * @param {Fields} message
 * @param {boolean} isFifo
 * @returns {Generator<Entry, void, void>}
 */
export function* entriesOf(message, isFifo) {
  const { to } = message;
  if (!("connections" in to)) {
    yield entryOf(message, to, "true", isFifo);
    return;
  }
  const size = isFifo ? 1 : CONNECTIONS;
  const bodies = Math.ceil(to.connections.length / size);
  for (let number = 1; number <= bodies; number += 1) {
    const ids = to.connections.slice((number - 1) * size, number * size);
    const receipt = bodies === 1 ? "true" : `{"part":"${number}/${bodies}"}`;
    yield entryOf(message, ids.length === 1 ? { connection: ids[0] } : { connections: ids }, receipt, isFifo);
  }
}

/**
 * @param {Fields} message
 * @param {Audience} to
 * @param {string} receipt
 * @param {boolean} isFifo
 * @returns {Entry}
 */
function entryOf(message, to, receipt, isFifo) {
  const { id, request, supersedable, expiresAt, keep } = message;
  const audience = JSON.stringify(to);
  const fields = [`"version":1`, `"id":${JSON.stringify(id)}`, `"to":${audience}`, `"payload":${message.payload}`];
  if (request) fields.push(`"request":${JSON.stringify(request)}`);
  if (supersedable) fields.push(`"supersedable":true`);
  if (expiresAt !== undefined) fields.push(`"expires_at":${expiresAt}`);
  if (keep !== undefined) fields.push(`"keep":${keep}`);
  if (message.receipt) fields.push(`"receipt":${receipt}`);
  const body = escapeForQueue(`{${fields.join(",")}}`);
  const entry = { body, bytes: bytesOf(body), trace: message.trace };
  if (isFifo) {
    const recipient = recipientOf(to);
    const group = fit(recipient);
    return { ...entry, group, deduplication: fit(`${encode(id)}:${recipient}`), key: group };
  }
  const tenant = "user" in to ? to.user.tenant : "tenant" in to ? to.tenant : message.fairQueueTenant;
  const group = tenant === undefined ? undefined : fit(encode(tenant));
  return { ...entry, group, key: request && JSON.stringify([request.id, audience]) };
}

/** Returns a text that identifies an audience on a FIFO queue. No two audiences share one. @param {Audience} to */
function recipientOf(to) {
  if ("connection" in to) return encode(to.connection);
  if ("user" in to) return `${encode(to.user.tenant)}#${encode(to.user.user)}`;
  throw new TypeError("a FIFO queue takes messages for one connection or one user");
}

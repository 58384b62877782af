/** JSON in characters that SQS accepts. */

import { MessageError } from "./errors.js";
import { PAYLOAD_BYTES } from "./limits.js";

/**
 * SQS accepts the characters of XML 1.0. JSON itself escapes the control characters, which leaves these two. A lone
 * surrogate has no form in UTF-8.
 *
 * Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>.
 */
const REFUSED = /[\ufffe\uffff]|\p{Surrogate}/gu;

/** @param {string} character */
const toEscape = (character) => `\\u${character.charCodeAt(0).toString(16)}`;

/** Escapes the characters in JSON text that SQS refuses. This does not change the value. @param {string} json */
export const escapeForQueue = (json) => json.replace(REFUSED, toEscape);

/** Returns whether a text has a lone surrogate. @param {string} text */
export const hasLoneSurrogate = (text) => /\p{Surrogate}/u.test(text);

/** Returns the size of a text in UTF-8. @param {string} text */
export const bytesOf = (text) => Buffer.byteLength(text);

const notJson = () => new MessageError("payload_not_json", "the payload cannot be written as JSON");

/**
 * Returns a value as the JSON text of a payload.
 * @param {unknown} value
 * @throws {MessageError} if the value is not JSON, or too large
 */
export function payloadOf(value) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch {
    throw notJson();
  }
  if (text === undefined) throw notJson();
  return checked(text);
}

/**
 * Checks JSON text, and returns it as a payload.
 * @param {string} text
 * @throws {MessageError} if the text is not JSON, or too large
 */
export function payloadOfText(text) {
  try {
    JSON.parse(text);
  } catch {
    throw notJson();
  }
  return checked(String(text).trim());
}

/** @param {string} text */
function checked(text) {
  const payload = escapeForQueue(text);
  const bytes = bytesOf(payload);
  if (bytes <= PAYLOAD_BYTES) return payload;
  throw new MessageError(
    "payload_too_large",
    `the payload has ${bytes} bytes, API Gateway delivers at most ${PAYLOAD_BYTES}: send a reference to it, or send it in parts`,
  );
}

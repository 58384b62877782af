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

const NOT_JSON = "the payload cannot be written as JSON";

/** @param {unknown} cause */
const notJson = (cause) => new MessageError("payload_not_json", `${NOT_JSON}: see the error's cause`, { cause });

/**
 * Checks that a value has JSON, and returns it. `JSON.stringify` would leave it out otherwise.
 * @param {any} value
 * @throws {MessageError} if the value is not JSON
 */
export function checkValue(value) {
  const type = typeOf(value);
  if (type !== "undefined" && type !== "function" && type !== "symbol" && type !== "promise") return value;
  const remedy = type === "promise" ? ": await it first" : "";
  throw new MessageError("payload_not_json", `${NOT_JSON}, because it has the type ${type}${remedy}`);
}

/** Checks a value that may be missing, and returns it. @param {unknown} value */
export const optionalValue = (value) => (value === undefined ? undefined : checkValue(value));

/** Returns the type of the value that `JSON.stringify` writes for a value. @param {any} value */
function typeOf(value) {
  if (typeof value?.then === "function") return "promise";
  if (typeof value?.toJSON !== "function") return typeof value;
  try {
    return typeof value.toJSON("");
  } catch (error) {
    throw notJson(error);
  }
}

/**
 * Returns a value as the JSON text of a payload.
 * @param {unknown} value
 * @throws {MessageError} if the value is not JSON, or too large
 */
export function payloadOf(value) {
  let text;
  try {
    text = JSON.stringify(checkValue(value));
  } catch (error) {
    throw error instanceof MessageError ? error : notJson(error);
  }
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
    // Without the cause, which repeats a part of the payload.
    throw new MessageError("payload_not_json", NOT_JSON);
  }
  return checked(text.trim());
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

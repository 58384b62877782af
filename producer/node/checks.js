/** Checks of the values of a message. */

import { MessageError } from "./errors.js";
import { bytesOf } from "./json.js";
import { KEPT_PAYLOAD_BYTES } from "./limits.js";

/**
 * Checks that a message which is to be kept is for a user, and not too large.
 * @param {{ keep?: number, to: import("./entry.js").Recipients }} options
 * @param {string} payload
 */
export function checkKeep({ keep, to }, payload) {
  if (keep === undefined) return;
  if (!("user" in to)) {
    throw new MessageError("keep_audience", "only a message to one user can be kept: address the user, or leave `keep` out");
  }
  const bytes = bytesOf(payload);
  if (bytes > KEPT_PAYLOAD_BYTES) {
    const most = `at most ${KEPT_PAYLOAD_BYTES} can be kept`;
    throw new MessageError("kept_payload", `the payload has ${bytes} bytes, ${most}: keep a reference to it instead`);
  }
}

/** @param {unknown} value */
const typeOf = (value) => (value === null ? "null" : `type ${typeof value}`);

/** Returns a text, and refuses values of other types. @param {string} name @param {unknown} value */
export function checkText(name, value) {
  if (typeof value === "string") return value;
  throw new MessageError("text", `\`${name}\` must be text, got ${typeOf(value)}`);
}

/** Returns a truth value, and refuses values of other types. @param {string} name @param {unknown} value */
export function checkFlag(name, value) {
  if (typeof value === "boolean") return value;
  throw new MessageError("flag", `\`${name}\` must be true or false, got ${typeOf(value)}`);
}

/** Returns a text, or nothing. @param {string} name @param {unknown} value */
export const optionalText = (name, value) => (value === undefined || value === null ? undefined : checkText(name, value));

/** Returns a number of milliseconds, and refuses other values. @param {string} name @param {unknown} value */
export function checkMilliseconds(name, value) {
  if (typeof value === "number" && value >= 0) return value;
  throw new TypeError(`\`${name}\` is a number of milliseconds, such as 2000`);
}

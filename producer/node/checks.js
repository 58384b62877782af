/** Checks of the values of a message. */

import { MessageError } from "./errors.js";
import { bytesOf } from "./json.js";
import { KEPT_PAYLOAD_BYTES } from "./limits.js";

/** Maximum length of a trace header: enough for root, parent, sampling decision and lineage. */
const TRACE_BYTES = 256;

/** Returns whether SQS accepts a trace header. @param {string} header */
export const isTrace = (header) => header.includes("Root=") && header.length <= TRACE_BYTES && /^[!-~]*$/.test(header);

/**
 * Checks that a message which is to be kept is for a user, and not too large.
 * @param {{ keep?: number, to: import("./message.js").Recipients }} options
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

/** Refuses a missing value, and returns any other. @param {unknown} value */
export function checkValue(value) {
  if (value !== undefined) return value;
  throw new MessageError("payload_not_json", "the payload cannot be written as JSON");
}

/** Returns a text, and refuses values of other types. @param {string} name @param {unknown} value */
export function text(name, value) {
  if (typeof value === "string") return value;
  throw new MessageError("text", `\`${name}\` must be text, got type ${typeof value}`);
}

/** Returns a text, or nothing. @param {string} name @param {unknown} value */
export const optionalText = (name, value) => (value === undefined || value === null ? undefined : text(name, value));

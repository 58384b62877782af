/** Identifiers: checks, and new ones. */

import { randomBytes } from "node:crypto";
import { MessageError } from "./errors.js";
import { bytesOf, hasLoneSurrogate } from "./json.js";
import { ID_CHARACTERS, PRINCIPAL_BYTES } from "./limits.js";

/**
 * Characters that could change what a terminal or a table shows: control characters, line and paragraph separators, and
 * characters that change the direction of text (Unicode Standard Annex 9, section 2).
 */
const MISLEADING = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u;

/** @param {string} text */
const charactersOf = (text) => [...text].length;

/**
 * Returns a check of an id. The error does not repeat the id.
 * @param {string} kind
 * @param {string} expected
 * @param {(id: string) => number | string | undefined} problemOf
 * @returns {(id: string) => string}
 */
const checkOf = (kind, expected, problemOf) => (id) => {
  const problem =
    typeof id !== "string" ? `type ${typeof id}` : hasLoneSurrogate(id) ? "a lone surrogate" : problemOf(id);
  if (problem === undefined) return id;
  throw new MessageError("id", `a ${kind} must have ${expected}; this one has ${problem}`);
};

/** @param {string} id */
const lengthProblem = (id) => {
  const characters = charactersOf(id);
  return characters >= 1 && characters <= ID_CHARACTERS ? undefined : characters;
};

/** @param {string} id */
const principalProblem = (id) => {
  if (MISLEADING.test(id)) return "one";
  const bytes = bytesOf(id);
  return bytes >= 1 && bytes <= PRINCIPAL_BYTES ? undefined : bytes;
};

const CHARACTERS = `1 to ${ID_CHARACTERS} characters`;
const PRINCIPAL = `1 to ${PRINCIPAL_BYTES} bytes and no control or bidirectional formatting character`;

export const checkMessageId = checkOf("message id", CHARACTERS, lengthProblem);
export const checkRequestId = checkOf("request id", CHARACTERS, lengthProblem);
export const checkTenantId = checkOf("tenant id", PRINCIPAL, principalProblem);
export const checkUserId = checkOf("user id", PRINCIPAL, principalProblem);

/** `.` and `..` would address another resource (RFC 3986, section 5.2.4). */
export const checkConnectionId = checkOf("connection id", `${CHARACTERS} and be neither \`.\` nor \`..\``, (id) =>
  id === "." || id === ".." ? id.length : lengthProblem(id),
);

/** Returns a new UUIDv7 (RFC 9562), which contains the current time in milliseconds. */
export function newMessageId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

let lastSeq = 0;

/**
 * Returns the clock in microseconds, or the previous result of this process plus 1 if that is later: the clock may be
 * set back, and it shows milliseconds only.
 */
export function nextSeq() {
  lastSeq = Math.max(Date.now() * 1000, lastSeq + 1);
  return lastSeq;
}

/**
 * The rules for the answers of requests: which payloads are answers, and which of them come too late.
 *
 * @typedef {import("./types.js").ClientMessage["type"]} AnswerType
 * @typedef {{ type: AnswerType, request_id: string, seq?: number, [field: string]: any }} Answer
 */

import { MAX_ENTRIES } from "./limits.js";

/** Whether an answer of this type is the last one of its request. @type {Record<string, boolean>} */
const ENDS = /** @type {any} */ ({
  __proto__: null,
  acknowledgment: false,
  progress: false,
  response: true,
  complete: true,
  error: true,
});

/**
 * Returns whether an answer is the last one of its request, `undefined` if a payload is no answer.
 * @param {any} payload
 * @returns {boolean | undefined}
 */
export const isEnd = (payload) => (payload?.request_id ? ENDS[payload.type] : undefined);

/**
 * Adds an entry to a map of the 1000 entries that were used last. Returns its earlier value.
 * @template K, V
 * @param {Map<K, V>} map
 * @param {K} key
 * @param {V} value
 */
export const remember = (map, key, value) => {
  const earlier = map.get(key);
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_ENTRIES) map.delete(/** @type {K} */ (map.keys().next().value));
  return earlier;
};

/**
 * Returns whether an answer must be dropped: it is older than one that was shown, or its request has ended. Otherwise
 * remembers it as shown.
 * @param {Map<any, number>} shown the highest `seq` that was shown of each request, `Infinity` after its end
 * @param {any} payload
 */
export const isStale = (shown, payload) => {
  const end = isEnd(payload);
  if (end === undefined) return false;
  const last = shown.get(payload.request_id) ?? 0;
  const seq = end ? Infinity : +payload.seq || last;
  remember(shown, payload.request_id, Math.max(seq, last));
  return seq < last || last === Infinity;
};

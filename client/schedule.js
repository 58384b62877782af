/** When the core opens sockets: delays before attempts, and rotations. Times are in milliseconds. */

import { GROWTH, LEAD, MINUTE, SECOND } from "./limits.js";

/**
 * Returns the delay of an attempt. API Gateway admits 500 new connections a second for an account, so the first attempts
 * are spread over a second, and later delays are at most about half of the time since the loss.
 * @param {number} attempts attempts before it
 * @param {() => number} random
 */
export const retryDelay = (attempts, random) =>
  (attempts ? 1 - random() / 2 : random()) * Math.min(MINUTE, SECOND * GROWTH ** attempts);

/**
 * Returns when to replace a socket that API Gateway will end: at least a minute after its opening, also if the server's
 * clock is wrong.
 * @param {number} openedAt
 * @param {number} now
 * @param {number} seconds until its end
 * @param {number} jitter
 */
export const rotationAt = (openedAt, now, seconds, jitter) =>
  Math.max(openedAt + MINUTE, now + seconds * SECOND - LEAD + jitter);

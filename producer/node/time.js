/** Times: durations with their units, and dates. */

import { MessageError } from "./errors.js";
import { EARLIEST, KEEP_SECONDS, NEVER } from "./limits.js";

/**
 * A time with its units, such as `{ minutes: 5 }`. A `Temporal.Duration` of these units is one, too.
 * @typedef {{ days?: number, hours?: number, minutes?: number, seconds?: number, milliseconds?: number }} Duration
 */

/** @type {Record<string, number>} */
const UNITS = { days: 86_400_000, hours: 3_600_000, minutes: 60_000, seconds: 1000, milliseconds: 1 };

/** The other units of a `Temporal.Duration`. Its fields are not enumerable. */
const OTHER_UNITS = ["years", "months", "weeks", "microseconds", "nanoseconds"];

/**
 * Returns a duration in milliseconds. A bare number is refused, because it does not say its unit.
 * @param {Duration} duration
 */
export function millisecondsOf(duration) {
  const error = () =>
    new MessageError("duration", "a duration is an object with numbers of days, hours, minutes, seconds or milliseconds, such as { minutes: 5 }");
  if (typeof duration !== "object" || duration === null) throw error();
  const fields = /** @type {Record<string, unknown>} */ (duration);
  if (Object.keys(fields).some((unit) => !(unit in UNITS)) || OTHER_UNITS.some((unit) => fields[unit])) throw error();
  const parts = Object.entries(UNITS).map(([unit, milliseconds]) => {
    const number = fields[unit];
    if (number === undefined) return undefined;
    if (typeof number !== "number" || !(number >= 0)) throw error();
    return number * milliseconds;
  });
  const given = parts.filter((part) => part !== undefined);
  if (!given.length) throw error();
  return given.reduce((sum, part) => sum + part, 0);
}

/**
 * Returns the milliseconds since the epoch of an expiry.
 * @param {Date | number} time
 */
export function expiryOf(time) {
  const milliseconds = Math.floor(Math.min(Number(time), NEVER));
  const isTime = (time instanceof Date || typeof time === "number") && !Number.isNaN(milliseconds);
  if (!isTime) {
    throw new MessageError("expiry", "the expiry is not a time: give a valid Date, or milliseconds since the epoch");
  }
  if (milliseconds >= EARLIEST) return milliseconds;
  throw new MessageError(
    "expiry",
    `the expiry is ${milliseconds} ms after the epoch, which looks like a number of seconds: multiply it by 1000`,
  );
}

/**
 * Returns the whole seconds for which a message is kept.
 * @param {Duration} duration
 */
export function keepSecondsOf(duration) {
  const seconds = Math.floor(millisecondsOf(duration) / 1000);
  const { from, to } = KEEP_SECONDS;
  if (seconds >= from && seconds <= to) return seconds;
  throw new MessageError("keep", `a message can be kept for ${from} to ${to} seconds (30 days), got ${seconds}`);
}

/** Percentages. */

import { MessageError } from "./errors.js";

/** Checks a percentage, and returns it. @param {number} percent */
export function checkPercent(percent) {
  if (Number.isInteger(percent) && percent >= 0 && percent <= 100) return percent;
  const isFraction = percent >= 0 && percent <= 100;
  const remedy = isFraction ? ": round it, or use percentOf" : "";
  throw new MessageError("percent", `percent must be between 0 and 100, got ${percent}${remedy}`);
}

/**
 * Returns the percentage that `done` is of `total`, rounded down. It is 100 if `total` is 0, or less than `done`.
 * @param {number} done
 * @param {number} total
 */
export function percentOf(done, total) {
  if (done >= total) return 100;
  // In floating point, 29 / 100 * 100 is less than 29.
  return Number((BigInt(Math.trunc(Math.max(done, 0))) * 100n) / BigInt(Math.ceil(total)));
}

/** Percentages. */

import { MessageError } from "./errors.js";

/** Checks a percentage, and returns it. @param {number} percent */
export function checkPercent(percent) {
  const isInRange = percent >= 0 && percent <= 100;
  if (Number.isInteger(percent) && isInRange) return percent;
  if (Number.isInteger(percent)) throw new MessageError("percent", `percent must be between 0 and 100, got ${percent}`);
  const remedy = typeof percent === "number" && isInRange ? ": round it, or use percentOf" : "";
  throw new MessageError("percent", `percent must be a whole number from 0 to 100, got ${shown(percent)}${remedy}`);
}

/**
 * Returns the percentage that `done` is of `total`, rounded down, from 0 to 100. It is 100 if `total` is 0 or less.
 * @param {number} done
 * @param {number} total
 * @throws {MessageError} if one of them is not a finite number
 */
export function percentOf(done, total) {
  if (!Number.isFinite(done) || !Number.isFinite(total)) {
    throw new MessageError("percent", `a percentage needs finite numbers, got ${shown(done)} of ${shown(total)}`);
  }
  if (total <= 0 || done >= total) return 100;
  if (done <= 0) return 0;
  const [part, whole] = [decimal(done), decimal(total)];
  // In floating point, 29 / 100 * 100 is less than 29.
  const shift = part.exponent - whole.exponent;
  const [up, down] = [10n ** BigInt(Math.max(shift, 0)), 10n ** BigInt(Math.max(-shift, 0))];
  return Number((100n * part.digits * up) / (whole.digits * down));
}

/** Returns a number as JavaScript writes it, in units of 10 to the power of `exponent`. @param {number} number */
function decimal(number) {
  const [digits, exponent] = number.toExponential().split("e");
  const [whole, fraction = ""] = digits.split(".");
  return { digits: BigInt(whole + fraction), exponent: Number(exponent) - fraction.length };
}

/** Returns a number, or the type of another value, for a text. @param {unknown} value */
const shown = (value) => (typeof value === "number" ? `${value}` : `type ${typeof value}`);

/** The number and the time of random cases. */

/** Milliseconds after which a case has hung. */
const CASE_LIMIT = 60_000;

/** Milliseconds that a case may take on average. */
const AVERAGE_LIMIT = 5000;

/**
 * Returns the options of fast-check for so many cases, or `RUNS` cases. They all run, and one that hangs fails; so do all that
 * together take too long. The search for a smaller case that fails has the same limit.
 */
export function cases(number) {
  const numRuns = Number(process.env.RUNS ?? number);
  const interruptAfterTimeLimit = numRuns * AVERAGE_LIMIT;
  return { numRuns, timeout: CASE_LIMIT, interruptAfterTimeLimit, markInterruptAsFailure: true, includeErrorInReport: true };
}

/** X-Ray's trace header. */

/** Maximum length of a trace header: enough for root, parent, sampling decision and lineage. */
const TRACE_BYTES = 256;

/** Returns whether SQS accepts a trace header. @param {string} header */
const isTrace = (header) => header.includes("Root=") && header.length <= TRACE_BYTES && /^[!-~]*$/.test(header);

/**
 * Returns the trace header of a message, by default that of the Lambda's invocation, if SQS accepts it. If an environment runs
 * several invocations at once, the runtime's store has the header of each. Otherwise, a variable has it.
 * @param {string | undefined} header
 * @returns {string | undefined}
 */
export function traceOf(header) {
  const { awslambda } = /** @type {any} */ (globalThis);
  const trace = header ?? awslambda?.InvokeStore?.getXRayTraceId?.() ?? process.env._X_AMZN_TRACE_ID;
  return typeof trace === "string" && isTrace(trace) ? trace : undefined;
}

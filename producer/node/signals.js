/** Signals of the caller. */

/**
 * The calls that await each signal, and its listener. All share one, because Node warns of more than ten.
 * @type {WeakMap<AbortSignal, { calls: Set<() => void>, listener: () => void }>}
 */
const awaited = new WeakMap();

/**
 * Makes a call when a signal is aborted, at once if it is already. Returns a function that gives the call up.
 * @param {AbortSignal | undefined} signal
 * @param {() => void} call
 * @returns {() => void}
 */
export function onAbort(signal, call) {
  if (!signal) return () => {};
  if (signal.aborted) {
    call();
    return () => {};
  }
  const { calls, listener } = awaited.get(signal) ?? listen(signal);
  calls.add(call);
  return () => {
    if (!calls.delete(call) || calls.size) return;
    signal.removeEventListener("abort", listener);
    awaited.delete(signal);
  };
}

/** @param {AbortSignal} signal */
function listen(signal) {
  /** @type {Set<() => void>} */
  const calls = new Set();
  const listener = () => [...calls].forEach((call) => call());
  signal.addEventListener("abort", listener);
  awaited.set(signal, { calls, listener });
  return { calls, listener };
}

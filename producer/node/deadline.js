/** The end of a send's time. */

import { onAbort } from "./signals.js";

/** The longest delay of a timer in milliseconds, about 24 days. A longer one would end at once. */
const MAX_DELAY = 2 ** 31 - 1;

/** The time by which messages must be on the queue, and the caller's signal. */
export class Deadline {
  /** Resolvers of all waits. @type {Set<(value?: any) => void>} */
  #waits = new Set();
  #timer;
  #signal;
  #forget;
  #ended = false;

  /**
   * @param {number} timeout in milliseconds
   * @param {AbortSignal | undefined} signal
   * @param {number} now
   */
  constructor(timeout, signal, now) {
    this.timeout = timeout;
    this.at = now + timeout;
    this.#signal = signal;
    this.#timer = setTimeout(this.#end, Math.min(timeout, MAX_DELAY));
    this.#forget = onAbort(signal, this.#end);
  }

  /** Whether the time is over, or the caller has aborted the send. */
  get hasEnded() {
    return this.#ended;
  }

  /** Whether the caller has aborted the send. */
  get isAborted() {
    return this.#signal?.aborted ?? false;
  }

  /** Why the caller has aborted the send. */
  get reason() {
    return this.#signal?.reason;
  }

  /** Returns the milliseconds until the end. @param {number} now */
  left(now) {
    return Math.max(this.at - now, 0);
  }

  #end = () => {
    this.#ended = true;
    for (const resolve of [...this.#waits]) resolve();
  };

  /**
   * Waits for a value, or for the end of the time, which gives none.
   * @template T
   * @param {(resolve: (value: T) => void) => void} start
   * @returns {Promise<T | undefined>}
   */
  wait(start) {
    return new Promise((resolve) => {
      if (this.#ended) return resolve(undefined);
      const done = (/** @type {T | undefined} */ value) => {
        this.#waits.delete(done);
        resolve(value);
      };
      this.#waits.add(done);
      start(done);
    });
  }

  /**
   * Waits for one of the pauses after a call, and returns whether that was before the end.
   * @param {import("./pauses.js").Pauses} pauses
   * @param {number} delay in milliseconds
   */
  async pause(pauses, delay) {
    let giveUp = () => {};
    const isOver = await this.wait((resolve) => (giveUp = pauses.begin(delay, () => resolve(true))));
    giveUp();
    return isOver === true;
  }

  /** Ends the timer. Nothing waits any more. */
  clear() {
    clearTimeout(this.#timer);
    this.#forget();
  }
}

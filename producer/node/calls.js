/**
 * The calls in flight: a shell around the buffer. There is no background task: a timer or a call exists only while a send
 * waits for it. A call whose sends have all ended is aborted.
 */

import { MAX_CALLS, SendBuffer } from "./buffer.js";
import { CALL_TIMEOUT, NO_ANSWER } from "./queue.js";

/** @typedef {import("./queue.js").Result} Result */

/**
 * A call in flight.
 * @typedef {{ live: number, abort: AbortController }} Call
 */

/**
 * An entry that waits for its call, or is in one.
 * @typedef {{ entry: import("./entry.js").Entry, resolve: (result: { result: Result }) => void, call?: Call }} Waiter
 */

export class Calls {
  #queue;
  #now;
  /** @type {SendBuffer<Waiter>} */
  #buffer;
  #isScheduled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingering;

  /**
   * @param {import("./queue.js").Queue} queue
   * @param {boolean} isFifo
   * @param {() => number} now
   */
  constructor(queue, isFifo, now) {
    this.#queue = queue;
    this.#now = now;
    this.#buffer = new SendBuffer(isFifo);
  }

  /** Takes the turn of an entry, and returns its id. @param {import("./entry.js").Entry} entry */
  reserve({ key, bytes }) {
    return this.#buffer.reserve(key, bytes);
  }

  /**
   * Makes one attempt to send an entry. Returns its result, or nothing and whether a call was in flight at the deadline.
   * @param {number} id
   * @param {import("./entry.js").Entry} entry
   * @param {import("./deadline.js").Deadline} deadline
   * @returns {Promise<{ result: Result } | { isInFlight: boolean }>}
   */
  async attempt(id, entry, deadline) {
    /** @type {Waiter | undefined} */
    let waiter;
    const answer = await deadline.wait((resolve) => {
      waiter = { entry, resolve };
      this.#buffer.enqueue(id, waiter, this.#now());
      this.#schedule();
    });
    if (answer) return answer;
    const call = waiter?.call;
    if (call) this.#leave(call);
    return { isInFlight: call !== undefined };
  }

  /** Gives up entries whose send has ended; without effect for those that have completed. @param {number[]} ids */
  cancel(ids) {
    for (const id of ids) this.#buffer.cancel(id);
    this.#begin();
  }

  /** Begins calls after the current sends, so that all that are sent at the same time can share a call. */
  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#begin();
    });
  }

  /** Begins the calls that are due, and waits for the time at which the next one is. */
  #begin() {
    clearTimeout(this.#lingering);
    for (let begun = 0; begun < MAX_CALLS; begun += 1) {
      const now = this.#now();
      const next = this.#buffer.next(now);
      if (!next) return;
      if ("at" in next) {
        this.#lingering = setTimeout(() => this.#begin(), Math.max(next.at - now, 1));
        return;
      }
      this.#call(next.batch);
    }
  }

  /** Makes a call, and gives each entry its result. @param {{ id: number, content: Waiter }[]} batch */
  async #call(batch) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), CALL_TIMEOUT);
    const call = { live: batch.length, abort };
    for (const { content } of batch) content.call = call;
    /** @type {Result[]} */
    const results = Array(batch.length).fill(NO_ANSWER);
    const entries = batch.map(({ content }) => content.entry);
    // The SDK may wait for something else than the queue, which a signal does not end.
    await Promise.race([this.#queue.send(entries, abort.signal, results), aborted(abort.signal)]);
    clearTimeout(timer);
    this.#buffer.complete(batch.map(({ id }, index) => ({ id, retry: results[index]?.kind === "not_taken" })));
    batch.forEach(({ content }, index) => content.resolve({ result: results[index] }));
    this.#begin();
  }

  /** Ends a call when the last of its sends leaves it. @param {Call} call */
  #leave(call) {
    call.live -= 1;
    if (call.live === 0) call.abort.abort();
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
const aborted = (signal) =>
  new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

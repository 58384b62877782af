/**
 * The calls in flight: a shell around the buffer. There is no background task: a timer or a call exists only while a send
 * waits for it. A call whose sends have all ended is aborted.
 */

import { MAX_CALLS, SendBuffer } from "./buffer.js";
import { Pauses } from "./pauses.js";
import { CALL_TIMEOUT, NO_ANSWER } from "./queue.js";

/** @typedef {import("./queue.js").Result} Result */

/** The result of an entry, and the pauses after its call. @typedef {{ result: Result, pauses: Pauses }} Answer */

/**
 * A call in flight, the number of sends that wait for it, and the results so far.
 * @typedef {{ live: number, abort: AbortController, results: Result[] }} Call
 */

/**
 * An entry that waits for its call, or is in one.
 * @typedef {{ entry: import("./entry.js").Entry, resolve: (answer: Answer) => void, index: number, call?: Call }} Waiter
 */

export class Calls {
  #queue;
  #now;
  #random;
  /** @type {SendBuffer<Waiter>} */
  #buffer;
  #isScheduled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingering;

  /**
   * @param {import("./queue.js").Queue} queue
   * @param {boolean} isFifo
   * @param {() => number} now
   * @param {() => number} random
   */
  constructor(queue, isFifo, now, random) {
    this.#queue = queue;
    this.#now = now;
    this.#random = random;
    this.#buffer = new SendBuffer(isFifo);
  }

  /** Takes the turn of an entry, and returns its id. @param {import("./entry.js").Entry} entry */
  reserve({ key, bytes }) {
    return this.#buffer.reserve(key, bytes);
  }

  /**
   * Makes one attempt to send an entry. Returns its answer, or how far the attempt had come at the deadline.
   * @param {number} id
   * @param {import("./entry.js").Entry} entry
   * @param {import("./deadline.js").Deadline} deadline
   * @returns {Promise<Answer | "not begun" | "waiting" | "in flight">}
   */
  async attempt(id, entry, deadline) {
    /** @type {Waiter | undefined} */
    let waiter;
    const answer = await deadline.wait((resolve) => {
      const now = this.#now();
      waiter = { entry, resolve, index: 0 };
      this.#buffer.enqueue(id, waiter, now, deadline.left(now));
      this.#schedule();
    });
    if (answer) return answer;
    if (!waiter) return "not begun";
    if (!waiter.call) return "waiting";
    this.#leave(waiter.call);
    const result = waiter.call.results[waiter.index];
    // Known before the end of the call if its entries were sent one by one.
    return result === NO_ANSWER ? "in flight" : { result, pauses: new Pauses(0) };
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
    /** @type {Result[]} */
    const results = Array(batch.length).fill(NO_ANSWER);
    const call = { live: batch.length, abort, results };
    batch.forEach(({ content }, index) => Object.assign(content, { index, call }));
    const entries = batch.map(({ content }) => content.entry);
    // The SDK may wait for something else than the queue, which a signal does not end.
    await Promise.race([this.#queue.send(entries, abort.signal, results), aborted(abort.signal)]);
    clearTimeout(timer);
    this.#buffer.complete(batch.map(({ id }, index) => ({ id, retry: results[index]?.kind === "not_taken" })));
    const pauses = new Pauses(this.#random());
    batch.forEach(({ content }, index) => content.resolve({ result: results[index], pauses }));
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

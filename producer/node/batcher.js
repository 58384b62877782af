/** The batcher: collects messages into calls to the queue, within its capacity, and retries those that the queue failed to take. */

import { MAX_CALLS } from "./buffer.js";
import { Calls } from "./calls.js";
import { Capacity } from "./capacity.js";
import { Deadline } from "./deadline.js";
import { SendError } from "./errors.js";
import { BATCH_BYTES, BATCH_MESSAGES } from "./limits.js";

/** Bytes of all messages that are being sent: 16 full batches. */
const CAPACITY = 16 * BATCH_BYTES;

/** Bytes of capacity that an entry needs beside its body. */
const OVERHEAD = 512;

/** Maximum number of batches of one send that wait at once. */
const BATCHES = 2 * MAX_CALLS;

/** The longest pause before the second attempt in milliseconds; it doubles with each further attempt. */
const FIRST_PAUSE = 100;

/** The longest pause before any attempt in milliseconds. */
const MAX_PAUSE = 2000;

/** The shortest time before the deadline in which an attempt begins, in milliseconds. */
const MIN_ATTEMPT = 10;

/** @typedef {{ index: number, entry: import("./entry.js").Entry }} Item an entry, and the index of its message */

/** The messages from an index on, of which no further entry is sent, and their error. @typedef {{ from: number, error: SendError }} Rest */

/**
 * Packs entries into batches, in order, each as full as the limits allow.
 * @param {Iterable<Item>} items
 * @returns {Generator<Item[], void, void>}
 */
export function* pack(items) {
  /** @type {Item[]} */
  let batch = [];
  let bytes = 0;
  for (const item of items) {
    const isFull = batch.length === BATCH_MESSAGES || bytes + item.entry.bytes > BATCH_BYTES;
    if (isFull && batch.length) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(item);
    bytes += item.entry.bytes;
  }
  if (batch.length) yield batch;
}

export class Batcher {
  #calls;
  #now;
  #capacity = new Capacity(CAPACITY);
  /** The sends in progress. @type {Set<Promise<unknown>>} */
  #sends = new Set();
  #isClosed = false;

  /**
   * @param {import("./queue.js").Queue} queue
   * @param {boolean} isFifo
   * @param {() => number} now
   * @param {() => number} random
   */
  constructor(queue, isFifo, now, random) {
    this.#calls = new Calls(queue, isFifo, now, random);
    this.#now = now;
  }

  /**
   * Sends entries, all of them within the time limit, and reports each that is not on the queue. At the end of the time,
   * returns the rest, whose entries are not made, because there may be very many.
   * @param {Iterable<Item>} items in the order of their indexes
   * @param {{ timeout: number, signal?: AbortSignal }} limit
   * @param {(index: number, error: SendError) => void} failed
   * @returns {Promise<Rest | undefined>}
   */
  async send(items, { timeout, signal }, failed) {
    if (this.#isClosed) {
      return { from: 0, error: new SendError("closed", "the producer is closed: send through another one") };
    }
    const deadline = new Deadline(timeout, signal, this.#now());
    const batches = pack(items);
    const take = () => batches.next().value;
    /** @type {Rest | undefined} */
    let rest;
    const sendFrom = async (/** @type {Item[] | void} */ batch) => {
      for (; batch && !deadline.hasEnded; batch = take()) await this.#sendBatch(batch, deadline, failed);
      if (!batch) return;
      // Ends the other lanes, too.
      batches.return();
      rest = { from: batch[0].index, error: ended(deadline, REASONS["not begun"], false) };
    };
    const lanes = [];
    for (let batch = take(); batch; batch = lanes.length < BATCHES ? take() : undefined) lanes.push(sendFrom(batch));
    const send = Promise.all(lanes);
    this.#sends.add(send);
    try {
      await send;
      return rest;
    } finally {
      this.#sends.delete(send);
      deadline.clear();
    }
  }

  /**
   * @param {Item[]} batch
   * @param {Deadline} deadline
   * @param {(index: number, error: SendError) => void} failed
   */
  async #sendBatch(batch, deadline, failed) {
    // Before the first `await`, so that entries keep the order of the calls to `send`.
    const ids = batch.map(({ entry }) => this.#calls.reserve(entry));
    const wanted = batch.reduce((sum, { entry }) => sum + entry.bytes + OVERHEAD, 0);
    const acquired = this.#capacity.acquire(wanted, deadline);
    const bytes = typeof acquired === "number" ? acquired : await acquired;
    if (bytes === undefined) {
      this.#calls.cancel(ids);
      for (const { index } of batch) failed(index, ended(deadline, "the producer's buffer is full", false));
      return;
    }
    const confirmed = batch.map(async ({ index, entry }, place) => {
      const error = await this.#confirm(ids[place], entry, deadline);
      if (error) failed(index, error);
    });
    await Promise.all(confirmed);
    this.#capacity.release(bytes);
  }

  /**
   * Returns when the entry is on the queue, or with the error why it is not. Retries it until the deadline.
   * @param {number} id
   * @param {import("./entry.js").Entry} entry
   * @param {Deadline} deadline
   * @returns {Promise<SendError | undefined>}
   */
  async #confirm(id, entry, deadline) {
    /** @type {import("./queue.js").NotTaken | undefined} */
    let last;
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, MAX_PAUSE)) {
      const answer = await this.#calls.attempt(id, entry, deadline);
      if (typeof answer === "string") {
        this.#calls.cancel([id]);
        const hasLeft = last !== undefined || answer === "in flight";
        return ended(deadline, last?.text ?? REASONS[answer], hasLeft, last?.error);
      }
      const { result, pauses } = answer;
      if (result?.kind !== "not_taken") return result && finalError(result);
      last = result;
      const left = deadline.left(this.#now());
      const isInTime = left >= MIN_ATTEMPT && (await deadline.pause(pauses, Math.min(pauses.share * pause, left / 2)));
      if (!isInTime) {
        this.#calls.cancel([id]);
        return ended(deadline, result.text, true, result.error);
      }
    }
  }

  /** Refuses later sends, and waits until all sends in progress have completed. */
  async close() {
    this.#isClosed = true;
    await Promise.all(this.#sends);
  }
}

/** Why there is no result at the deadline. */
const REASONS = {
  "not begun": "no attempt was made",
  waiting: "it is waiting behind others",
  "in flight": "the queue has not answered",
};

/** Returns the error of a message that the queue would refuse again. @param {import("./queue.js").Failure} failure */
function finalError(failure) {
  const { error: cause } = failure;
  if (failure.kind !== "refused") {
    return new SendError("not_configured", `the queue cannot be called: ${failure.text}`, { cause });
  }
  const { code, message } = failure;
  return new SendError("refused", `the queue refused the message: ${code}: ${message}`, { code, cause });
}

/**
 * Returns the error of an entry that is not confirmed at the deadline.
 * @param {Deadline} deadline
 * @param {string} reason
 * @param {boolean} hasLeft whether it was in a call
 * @param {unknown} [cause]
 */
function ended(deadline, reason, hasLeft, cause) {
  const remedy = "send it again with the same id";
  if (deadline.isAborted) {
    const place = hasLeft ? "the message may be on the queue" : "the message is not on the queue";
    return new SendError("aborted", `the send was aborted, and ${place}: ${reason}; ${remedy}`, { cause: deadline.reason });
  }
  const time = `within ${deadline.timeout / 1000} s`;
  const problem = hasLeft
    ? `the queue did not confirm the message ${time}`
    : `the message is not on the queue, because it did not leave ${time}`;
  return new SendError("timed_out", `${problem}: ${reason}; ${remedy}`, { cause });
}

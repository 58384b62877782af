/** The batcher: collects sends into calls to the queue, within its capacity, and retries what the queue failed to take. */

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
  #random;
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
    this.#calls = new Calls(queue, isFifo, now);
    this.#now = now;
    this.#random = random;
  }

  /**
   * Sends entries, all of them within the time limit, and reports each that is not on the queue.
   * @param {Iterable<Item>} items
   * @param {{ timeout: number, signal?: AbortSignal }} limit
   * @param {(index: number, error: SendError) => void} failed
   */
  async send(items, { timeout, signal }, failed) {
    if (this.#isClosed) {
      const error = new SendError("closed", "the producer is closed: send through another one");
      for (const { index } of items) failed(index, error);
      return;
    }
    const deadline = new Deadline(timeout, signal, this.#now());
    const batches = pack(items);
    const take = () => batches.next().value;
    const sendFrom = async (/** @type {Item[] | void} */ batch) => {
      for (; batch; batch = take()) await this.#sendBatch(batch, deadline, failed);
    };
    const lanes = [];
    for (let batch = take(); batch; batch = lanes.length < BATCHES ? take() : undefined) lanes.push(sendFrom(batch));
    const send = Promise.all(lanes);
    this.#sends.add(send);
    try {
      await send;
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
      for (const { index } of batch) failed(index, ended(deadline, "the producer's buffer is full"));
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
    /** @type {string | undefined} */
    let cause;
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, MAX_PAUSE)) {
      const answer = await this.#calls.attempt(id, entry, deadline);
      if (!("result" in answer)) {
        this.#calls.cancel([id]);
        const where = answer.isInFlight ? "the queue has not answered" : "the message is waiting behind others";
        return ended(deadline, cause ?? where);
      }
      const { result } = answer;
      if (!result) return undefined;
      if (result.kind === "refused") {
        const { code, message } = result;
        return new SendError("refused", `the queue refused the message: ${code}: ${message}`, { code });
      }
      if (result.kind === "not_configured") {
        const remedy = "set the client's credentials, Region and endpoint";
        return new SendError("not_configured", `the queue cannot be called: ${result.cause}; ${remedy}`);
      }
      cause = result.cause;
      const left = deadline.at - this.#now();
      const isInTime = left >= MIN_ATTEMPT && (await deadline.pause(Math.min(this.#random() * pause, left / 2)));
      if (!isInTime) {
        this.#calls.cancel([id]);
        return ended(deadline, cause);
      }
    }
  }

  /** Refuses later sends, and waits until all sends in progress have completed. */
  async close() {
    this.#isClosed = true;
    await Promise.all(this.#sends);
  }
}

/** Returns the error for a message that is not on the queue at the deadline. @param {Deadline} deadline @param {string} cause */
function ended(deadline, cause) {
  const remedy = "send it again with the same id";
  if (deadline.isAborted) {
    const text = `the send was aborted, and the message may be on the queue: ${cause}; ${remedy}`;
    return new SendError("aborted", text, { cause: deadline.reason });
  }
  const time = `${deadline.timeout / 1000} s`;
  return new SendError("timed_out", `the queue did not confirm the message within ${time}: ${cause}; ${remedy}`);
}

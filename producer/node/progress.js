/** Progress of a request, at a limited rate. */

import { checkMilliseconds } from "./checks.js";
import { Deadline } from "./deadline.js";
import { MessageError, ProgressError, SendError } from "./errors.js";
import { newMessageId } from "./ids.js";
import { MessageBuilder, builderOf, optionsOf } from "./message.js";
import { checkPercent } from "./percent.js";
import { onAbort } from "./signals.js";

/** Default interval between two updates in milliseconds: 10 updates per second. */
const MIN_INTERVAL = 100;

/** @typedef {import("./producer.js").SendOptions} SendOptions */

/**
 * @typedef {object} ProgressOptions
 * @property {number} [minInterval] The minimum interval between two updates in milliseconds. Default: 100.
 * @property {number} [timeout] The time that an update may take in milliseconds, and by default an end, including the wait
 *   for earlier ones. Default: that of the producer.
 * @property {AbortSignal} [signal] Ends the sends of updates early, and not those of ends: a client whose job was cancelled
 *   still awaits its end.
 */

/** @typedef {{ minInterval?: number, now: () => number, limit: { timeout: number, signal?: AbortSignal } }} Settings */

/** @type {(producer: import("./producer.js").Producer, to: MessageBuilder, settings: Settings) => Progress} */
let newProgress;

/**
 * Returns a handle for the progress of one request.
 * @param {import("./producer.js").Producer} producer
 * @param {MessageBuilder} to
 * @param {Settings} settings
 */
export const progressOf = (producer, to, settings) => newProgress(producer, to, settings);

/**
 * The progress of one request for one audience: updates, and then one end.
 *
 * The program may call `update` at any rate. The first update leaves at once. Of the updates within 100 ms of the last one
 * that left, only the latest is kept. It leaves with the first call after the 100 ms, with `flush`, or before the end. So at
 * most 10 updates per second leave, and the last is never dropped. There is no timer: before a pause, call `flush`.
 *
 * `complete`, `fail` and `respond` end the progress, after every update. An end that has failed can be repeated; all ends have
 * the same id. If the builder keeps the message or asks for a receipt, that applies to the end, and not to the updates.
 *
 * An end first sends the pending update, in half of its time at most. Then it drops that update, and stops one that is still
 * being sent.
 *
 * Updates and ends are sent one after another. The wait for earlier ones is part of the time limit: if that ends first, or
 * the signal is aborted, nothing is sent, and the error says so.
 */
export class Progress {
  #producer;
  #updates;
  #ends;
  #minInterval;
  #now;
  /** The time limit of updates, and the default of ends. */
  #timeout;
  /** The signal of updates. */
  #signal;
  /** When the last update left. @type {number | undefined} */
  #leftAt;
  #reached = 0;
  /** @type {{ percent: number, message?: string } | undefined} */
  #pending;
  #isEnded = false;
  /** The number of ends in progress. */
  #ending = 0;
  /** The latest flush that has begun. @type {Promise<void> | undefined} */
  #flushed;
  /** Stops the update that is being sent. @type {(() => void) | undefined} */
  #stop;
  /** The latest of the calls, which are made one after another. @type {Promise<unknown>} */
  #latest = Promise.resolve();

  static {
    newProgress = (producer, to, settings) => new Progress(producer, to, settings);
  }

  /**
   * @private
   * @param {import("./producer.js").Producer} producer
   * @param {MessageBuilder} to
   * @param {Settings} settings
   */
  constructor(producer, to, { minInterval = MIN_INTERVAL, now, limit }) {
    if (!(to instanceof MessageBuilder)) {
      throw new TypeError("progress takes a builder with an audience and a request: leave its content out");
    }
    const options = optionsOf(to);
    if (options.request === undefined) {
      throw new MessageError("no_request", "progress belongs to a request: name it with `request`");
    }
    this.#producer = producer;
    this.#updates = builderOf({ ...options, id: undefined, keep: undefined, receipt: undefined });
    this.#ends = builderOf({ ...options, id: options.id ?? newMessageId() });
    // Reports values that are not valid now, and not with the first update.
    this.#ends.acknowledgment();
    this.#minInterval = checkMilliseconds("minInterval", minInterval);
    this.#now = now;
    this.#timeout = limit.timeout;
    this.#signal = limit.signal;
  }

  /**
   * Reports how much of the work is done. Resolves at once if the update is kept for later, and otherwise when the queue has
   * it. An update that could not be sent is kept for the next call.
   * @param {number} percent a whole number from 0 to 100
   * @param {string} [message] for people
   * @throws {MessageError | ProgressError} A value that is not valid, or lower than before, is ignored.
   * @throws {import("./errors.js").SendError}
   */
  async update(percent, message) {
    this.#checkOpen();
    checkPercent(percent);
    if (percent < this.#reached) {
      const values = `it was at ${this.#reached} percent, got ${percent}`;
      throw new ProgressError("backwards", `progress cannot go backwards: ${values}`);
    }
    // Checks the text.
    this.#updates.progress(percent, message);
    this.#reached = percent;
    this.#pending = { percent, message };
    if (this.#leftAt !== undefined && this.#now() - this.#leftAt < this.#minInterval) return;
    await this.flush();
  }

  /**
   * Sends the pending update, if there is one, regardless of the rate. While an end is in progress, leaves the update to that.
   * @throws {import("./errors.js").SendError}
   */
  async flush() {
    if (!this.#pending || this.#isEnded) return;
    const flushed = this.#flushed;
    const deadline = new Deadline(this.#timeout, this.#signal, this.#now());
    await this.#inTurn(deadline, async () => {
      // All calls that waited for their turn share a flush.
      if (this.#flushed !== flushed) return this.#flushed;
      if (!this.#ending) await (this.#flushed = this.#flush(deadline.left(this.#now()), this.#signal));
    });
  }

  /**
   * Ends the request with its result.
   * @param {unknown} result any JSON
   * @param {SendOptions} [options] the time limit, including that of the pending update, and the signal of this end
   */
  async complete(result, options) {
    await this.#end((to) => to.complete(result), options);
  }

  /**
   * Ends the request with an answer, for a client that expects a `response`.
   * @param {unknown} data any JSON
   * @param {SendOptions} [options] those of `complete`
   */
  async respond(data, options) {
    await this.#end((to) => to.response(data), options);
  }

  /**
   * Ends the request with an error.
   * @param {string} code for programs
   * @param {string} message for people
   * @param {unknown} [details] any JSON
   * @param {SendOptions} [options] those of `complete`
   */
  async fail(code, message, details, options) {
    await this.#end((to) => to.error(code, message, details), options);
  }

  /** Sends the pending update, for `await using`. The request still needs an end. */
  async [Symbol.asyncDispose]() {
    await this.flush();
  }

  /** @param {(to: MessageBuilder) => import("./message.js").Message} build @param {SendOptions} [options] */
  async #end(build, { timeout = this.#timeout, signal } = {}) {
    checkMilliseconds("timeout", timeout);
    this.#checkOpen();
    // Builds the end before the update leaves: an end that is not valid changes nothing.
    build(this.#ends);
    const deadline = new Deadline(timeout, signal, this.#now());
    // An update that cannot be sent must not use up the time for the end.
    // Without the signal, because an end that is aborted stops no update.
    const half = new Deadline(timeout / 2, undefined, this.#now());
    half.wait(() => {}).then(() => this.#stop?.());
    this.#ending += 1;
    try {
      await this.#inTurn(deadline, async () => {
        this.#checkOpen();
        const left = half.left(this.#now());
        if (left > 0) await this.#flush(left, signal).catch(() => {});
        this.#pending = undefined;
        // Built again after the update, so that its `seq` is higher.
        await this.#producer.send(build(this.#ends), { timeout: deadline.left(this.#now()), signal });
        this.#isEnded = true;
      });
    } finally {
      this.#ending -= 1;
      half.clear();
    }
  }

  /** @param {number} timeout @param {AbortSignal | undefined} signal */
  async #flush(timeout, signal) {
    const update = this.#pending;
    if (!update || this.#isEnded) return;
    this.#leftAt = this.#now();
    const stop = new AbortController();
    const forget = onAbort(signal, () => stop.abort(signal?.reason));
    this.#stop = () => stop.abort(new ProgressError("ended", "the request ends, and the update took too long"));
    try {
      await this.#producer.send(this.#updates.progress(update.percent, update.message), { timeout, signal: stop.signal });
      // A newer update may have come.
      if (this.#pending === update) this.#pending = undefined;
    } finally {
      this.#stop = undefined;
      forget();
    }
  }

  /**
   * Runs a call after the earlier ones, if these end before the deadline.
   * @param {Deadline} deadline
   * @param {() => Promise<void>} call
   */
  async #inTurn(deadline, call) {
    const earlier = this.#latest;
    const run = deadline.wait((/** @type {(value: true) => void} */ begin) => earlier.then(() => begin(true))).then((isTurn) => {
      deadline.clear();
      return isTurn ? call() : Promise.reject(notBegun(deadline));
    });
    // A call that has given up does not let later ones overtake the earlier ones.
    this.#latest = Promise.allSettled([earlier, run]).then(() => {});
    await run;
  }

  #checkOpen() {
    if (this.#isEnded) throw new ProgressError("ended", "the request has ended: begin the progress of another one");
  }
}

/** Returns the error of a call whose turn has not come. @param {Deadline} deadline */
function notBegun({ isAborted, reason, timeout }) {
  if (isAborted) return new SendError("aborted", "nothing was sent, because the call was aborted before its turn", { cause: reason });
  const cause = "an earlier update or end of this request was being sent";
  return new SendError("timed_out", `nothing was sent within ${timeout / 1000} s, because ${cause}: call it again`);
}

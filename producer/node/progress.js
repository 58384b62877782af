/** Progress of a request, at a limited rate. */

import { MessageError, ProgressError } from "./errors.js";
import { newMessageId } from "./ids.js";
import { MessageBuilder, optionsOf } from "./message.js";
import { checkPercent } from "./percent.js";

/** Default interval between two updates in milliseconds: 10 updates per second. */
const MIN_INTERVAL = 100;

/**
 * @typedef {object} ProgressOptions
 * @property {number} [minInterval] The minimum interval between two updates in milliseconds. Default: 100.
 */

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
 * An end first sends the pending update. If that fails within half the time limit, the end drops the update.
 */
export class Progress {
  #producer;
  #updates;
  #ends;
  #minInterval;
  #now;
  #limit;
  /** When the last update left. @type {number | undefined} */
  #leftAt;
  #reached = 0;
  /** @type {{ percent: number, message?: string } | undefined} */
  #pending;
  #isEnded = false;
  /** The latest of the calls, which are made one after another. @type {Promise<unknown>} */
  #latest = Promise.resolve();

  /**
   * @param {import("./producer.js").Producer} producer
   * @param {MessageBuilder} to
   * @param {{ minInterval?: number, now: () => number, limit: { timeout: number, signal?: AbortSignal } }} options
   */
  constructor(producer, to, { minInterval = MIN_INTERVAL, now, limit }) {
    const options = optionsOf(to);
    if (options.request === undefined) {
      throw new MessageError("no_request", "progress belongs to a request: name it with `request`");
    }
    this.#producer = producer;
    this.#updates = new MessageBuilder({ ...options, id: undefined, keep: undefined, receipt: undefined });
    this.#ends = new MessageBuilder({ ...options, id: options.id ?? newMessageId() });
    // Reports values that are not valid now, and not with the first update.
    this.#ends.acknowledgment();
    this.#minInterval = minInterval;
    this.#now = now;
    this.#limit = limit;
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

  /** Sends the pending update, if there is one, regardless of the rate. @throws {import("./errors.js").SendError} */
  async flush() {
    await this.#inTurn(() => this.#flush(this.#limit));
  }

  /** Ends the request with its result. @param {unknown} result any JSON */
  async complete(result) {
    await this.#end((to) => to.complete(result));
  }

  /** Ends the request with an answer, for a client that expects a `response`. @param {unknown} data any JSON */
  async respond(data) {
    await this.#end((to) => to.response(data));
  }

  /**
   * Ends the request with an error.
   * @param {string} code for programs
   * @param {string} message for people
   * @param {unknown} [details] any JSON
   */
  async fail(code, message, details) {
    await this.#end((to) => to.error(code, message, details));
  }

  /** Sends the pending update, for `await using`. The request still needs an end. */
  async [Symbol.asyncDispose]() {
    await this.flush();
  }

  /** @param {(to: MessageBuilder) => import("./message.js").Message} build */
  async #end(build) {
    await this.#inTurn(async () => {
      this.#checkOpen();
      // Builds the end before the update leaves: an end that is not valid changes nothing.
      build(this.#ends);
      // An update that cannot be sent must not use up the time for the end.
      await this.#flush({ ...this.#limit, timeout: this.#limit.timeout / 2 }).catch(() => (this.#pending = undefined));
      // Built again after the update, so that its `seq` is higher.
      await this.#producer.send(build(this.#ends), this.#limit);
      this.#isEnded = true;
    });
  }

  /** @param {{ timeout: number, signal?: AbortSignal }} limit */
  async #flush(limit) {
    const update = this.#pending;
    if (!update || this.#isEnded) return;
    this.#leftAt = this.#now();
    await this.#producer.send(this.#updates.progress(update.percent, update.message), limit);
    // A newer update may have come.
    if (this.#pending === update) this.#pending = undefined;
  }

  /** Runs a call after the earlier ones. @param {() => Promise<void>} call */
  #inTurn(call) {
    const run = this.#latest.then(call);
    this.#latest = run.catch(() => {});
    return run;
  }

  #checkOpen() {
    if (this.#isEnded) throw new ProgressError("ended", "the request has ended: begin the progress of another one");
  }
}

/** The producer. */

import { SQSClient } from "@aws-sdk/client-sqs";
import { Batcher } from "./batcher.js";
import { checkMilliseconds } from "./checks.js";
import { entriesOf } from "./entry.js";
import { SendAllError, SendError, errorOfTwo } from "./errors.js";
import { Message, fieldsOf } from "./message.js";
import { progressOf } from "./progress.js";
import { Queue, isFifo } from "./queue.js";

/** Default time limit of a send in milliseconds. */
const TIMEOUT = 10_000;

/**
 * @typedef {object} ProducerOptions
 * @property {Pick<SQSClient, "send">} [client] Calls the queue. The producer retries itself, and turns the client's retries of
 *   its calls off. The default is a client that reads Region, credentials and endpoint from the environment, as all AWS SDKs do.
 * @property {number} [timeout] The time that a send may take in milliseconds, retries included. Default: 10 000.
 * @property {() => number} [now] Returns the time in milliseconds. Default: `performance.now`.
 * @property {() => number} [random] Returns numbers from 0 (inclusive) to 1 (exclusive). Default: `Math.random`.
 */

/**
 * @typedef {object} SendOptions
 * @property {number} [timeout] The time that the send may take in milliseconds. In Lambda, that is at most the time that is
 *   left of the invocation. Default: that of the producer.
 * @property {AbortSignal} [signal] Ends the send early. The message may be on the queue all the same.
 */

/**
 * Sends messages to the outbound queue. Share one in the whole program: concurrent sends share calls.
 *
 * While no call is in flight, messages leave at once. While one is, they fill the next batch, of up to 10 messages and
 * 1 MiB. It leaves when it is full, when no call is in flight any more, or after 20 ms. Up to 8 calls are in flight at once.
 *
 * The producer retries messages that the queue failed to take, and only those, until the time limit. If only the answer to a
 * call was lost, the message is on the queue twice.
 *
 * Messages of one request for one audience keep their order; on a FIFO queue, messages for one recipient do. A send beside a
 * `sendAll` of more than 160 messages, or 16 MiB, may pass those that have not begun: await the first.
 *
 * At most 16 MiB are being sent at once; beyond that, `send` waits. Nothing goes on after the promise of a send has settled.
 */
export class Producer {
  #batcher;
  #isFifo;
  #timeout;
  #now;

  /**
   * @param {string | undefined} queueUrl such as `process.env.QUEUE_URL`
   * @param {ProducerOptions} [options]
   * @throws {TypeError} if the URL is missing, or the time limit is no number of milliseconds
   */
  constructor(queueUrl, { client, timeout = TIMEOUT, now = () => performance.now(), random = Math.random } = {}) {
    if (typeof queueUrl !== "string" || !queueUrl) {
      throw new TypeError("the producer has no queue: give it the queue's URL, such as process.env.QUEUE_URL");
    }
    this.#isFifo = isFifo(queueUrl);
    this.#timeout = checkMilliseconds("timeout", timeout);
    this.#now = now;
    const queue = new Queue(client ?? new SQSClient({}), queueUrl);
    this.#batcher = new Batcher(queue, this.#isFifo, now, random);
  }

  /**
   * Sends a message to the queue. Resolves when the queue has it for all its recipients.
   * @param {Message} message
   * @param {SendOptions} [options]
   * @throws {SendError} also if the queue has the message for some of its recipients. To retry, send the message again: it has
   *   its id, by which clients can drop a second delivery. A refused message would be refused again.
   */
  async send(message, options = {}) {
    const [error] = await this.#send([message], options);
    if (error) throw error;
  }

  /**
   * Sends messages to the queue, all of them within the time limit: for many thousands, increase it. Resolves when the queue
   * has all of them.
   * @param {Iterable<Message>} messages
   * @param {SendOptions} [options]
   * @throws {SendAllError} It names the messages that are not on the queue: send those again, except refused ones.
   */
  async sendAll(messages, options = {}) {
    const all = [...messages];
    const errors = await this.#send(all, options);
    const unsent = errors.flatMap((error, index) => (error ? [{ index, id: all[index].id, error }] : []));
    if (unsent.length) throw new SendAllError(all.length, unsent);
  }

  /**
   * Returns a handle for the progress of one request.
   * @param {import("./message.js").MessageBuilder} to with an audience and a request
   * @param {import("./progress.js").ProgressOptions} [options]
   */
  progress(to, { minInterval, ...options } = {}) {
    return progressOf(this, to, { minInterval, now: this.#now, limit: this.#limit(options) });
  }

  /** Refuses later sends, and waits until all sends in progress have completed. */
  async close() {
    await this.#batcher.close();
  }

  /** Closes the producer, for `await using`. */
  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /**
   * Sends messages, and returns the error of each that is not on the queue, in its place.
   * @param {Message[]} messages
   * @param {SendOptions} options
   */
  async #send(messages, options) {
    messages.forEach(check);
    const errors = messages.map((message) => this.#refusalOf(message));
    const rest = await this.#batcher.send(this.#items(messages), this.#limit(options), (index, error) => {
      errors[index] = errorOfTwo(errors[index], error);
    });
    for (let index = rest?.from ?? errors.length; index < errors.length; index += 1) errors[index] ??= rest?.error;
    return errors;
  }

  /** @param {Message[]} messages */
  *#items(messages) {
    for (const [index, message] of messages.entries()) {
      if (this.#refusalOf(message)) continue;
      for (const entry of entriesOf(fieldsOf(message), this.#isFifo)) yield { index, entry };
    }
  }

  /** @param {SendOptions} options */
  #limit({ timeout = this.#timeout, signal }) {
    return { timeout: checkMilliseconds("timeout", timeout), signal };
  }

  /** Returns the error of a message that a queue of this kind cannot take. @param {Message} message */
  #refusalOf(message) {
    if (!this.#isFifo || !("tenant" in fieldsOf(message).to)) return undefined;
    const reason = "a FIFO queue takes no message for a tenant, because such a message has no order";
    return new SendError("tenant_on_fifo", `${reason}: send it to a standard queue`);
  }
}

/** @param {unknown} message */
function check(message) {
  if (message instanceof Message) return;
  throw new TypeError("send takes a Message: end the builder with its content, such as .response(data)");
}

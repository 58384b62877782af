/** A client of the SDK whose calls fail on the way to a real queue, or on the way back. */

import { SQSServiceException, SendMessageBatchCommand } from "@aws-sdk/client-sqs";

/** Milliseconds after which the producer may have given up a call; less than its time limit of 5 s. */
const SLOW = 4000;

export class FaultyClient {
  /** How often the queue took each body without an answer to the producer. @type {Map<string, number>} */
  lost = new Map();
  /** Errors of the queue itself for a whole call. */
  errors = [];
  /** The number of entries of each call that reached the queue. */
  sizes = [];
  #client;
  #answers;
  #calls = new Set();

  /**
   * `answers` has one for each call; later ones are `taken`. An array answers each entry: `taken`, `throttled` or
   * `unmentioned`, and only the first reaches the queue. `{ error }` fails the call before the queue, and `reset` breaks it
   * off. `reset_after` breaks it off when the entries are on the queue.
   */
  constructor(client, answers) {
    this.#client = client;
    this.#answers = [...answers];
  }

  async send({ input }, { abortSignal }) {
    const answer = this.#answers.shift() ?? "taken";
    if (answer === "reset") throw broken();
    // Alone, an entry with such an error would be at fault.
    if (answer.error && !(answer.error === "InvalidMessageContents" && input.Entries.length === 1)) throw failed(answer.error);
    const results = Array.isArray(answer) ? answer : [];
    const taken = input.Entries.filter((_, index) => (results[index] ?? "taken") === "taken");
    const throttled = input.Entries.filter((_, index) => results[index] === "throttled");
    const begun = Date.now();
    // Without the signal: a call that was aborted arrives all the same.
    const output = taken.length ? await this.#call({ ...input, Entries: taken }) : {};
    if (answer === "reset_after" || abortSignal.aborted || Date.now() - begun > SLOW) {
      for (const { MessageBody } of taken) this.lost.set(MessageBody, (this.lost.get(MessageBody) ?? 0) + 1);
    }
    if (answer === "reset_after") throw broken();
    const fault = { Code: "RequestThrottled", SenderFault: true, Message: "scripted" };
    return { ...output, Failed: [...(output.Failed ?? []), ...throttled.map(({ Id }) => ({ Id, ...fault }))] };
  }

  #call(input) {
    this.sizes.push(input.Entries.length);
    const call = this.#client.send(new SendMessageBatchCommand(input));
    const ended = call.catch((error) => this.errors.push(error)).then(() => this.#calls.delete(ended));
    this.#calls.add(ended);
    return call;
  }

  /** Waits until all calls have ended at the queue. */
  async settled() {
    while (this.#calls.size) await Promise.all(this.#calls);
  }
}

const broken = () => Object.assign(new Error("socket hang up"), { code: "ECONNRESET" });

function failed(name) {
  const httpStatusCode = name === "InternalError" ? 500 : 400;
  return new SQSServiceException({ name, message: "scripted", $fault: "client", $metadata: { httpStatusCode } });
}

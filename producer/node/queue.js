/** One call to the queue, and its result for each entry. */

import { SendMessageBatchCommand } from "@aws-sdk/client-sqs";
import { isFinal, isMessageFault, isRefusal } from "./errors.js";

/**
 * Why the queue does not have an entry: it would refuse it again; or no call can be made, because the client lacks its
 * configuration; or a retry can succeed, and the entry may be on the queue.
 *
 * @typedef {{ kind: "refused", code: string, message: string }} Refused
 * @typedef {{ kind: "not_configured" | "not_taken", cause: string }} NotTaken
 * @typedef {Refused | NotTaken} Failure
 */

/** The result of an entry: nothing if the queue has it. @typedef {Failure | undefined} Result */

/** Time limit of the calls for a batch in milliseconds; after it, the entries without an answer are retried. */
export const CALL_TIMEOUT = 5000;

/** @type {Result} */
export const NO_ANSWER = { kind: "not_taken", cause: `the queue did not answer within ${CALL_TIMEOUT / 1000} s` };

/** @param {string} url */
export const isFifo = (url) => url.endsWith(".fifo");

/** The queue that a producer sends to. */
export class Queue {
  #client;
  #url;

  /**
   * @param {Pick<import("@aws-sdk/client-sqs").SQSClient, "send">} client
   * @param {string} url
   */
  constructor(client, url) {
    this.#client = client;
    this.#url = url;
  }

  /**
   * Sends up to 10 entries, and writes the result of each into `results` as soon as it is known. Never rejects.
   * @param {import("./entry.js").Entry[]} entries
   * @param {AbortSignal} signal
   * @param {Result[]} results
   */
  async send(entries, signal, results) {
    const answered = await this.#call(entries, signal);
    const [first] = answered;
    // One entry may have failed the whole call: without it, the others can succeed.
    const isWhole = entries.length > 1 && answered.every((result) => result === first);
    if (!isWhole || first?.kind !== "refused" || !isMessageFault(first.code)) {
      results.splice(0, results.length, ...answered);
      return;
    }
    for (const [index, entry] of entries.entries()) {
      if (signal.aborted) return;
      [results[index]] = await this.#call([entry], signal);
    }
  }

  /** @param {import("./entry.js").Entry[]} entries @param {AbortSignal} signal @returns {Promise<Result[]>} */
  async #call(entries, signal) {
    const command = new SendMessageBatchCommand({ QueueUrl: this.#url, Entries: entries.map(toRequest) });
    try {
      const output = await this.#client.send(command, { abortSignal: signal });
      return entries.map((_, index) => resultOf(output, String(index)));
    } catch (error) {
      return Array(entries.length).fill(signal.aborted ? NO_ANSWER : failureOf(error));
    }
  }
}

/** @param {import("./entry.js").Entry} entry @param {number} index */
const toRequest = ({ body, group, deduplication, trace }, index) => ({
  Id: String(index),
  MessageBody: body,
  MessageGroupId: group,
  MessageDeduplicationId: deduplication,
  MessageSystemAttributes: trace === undefined ? undefined : { AWSTraceHeader: { DataType: "String", StringValue: trace } },
});

/**
 * Returns the result of one entry. An entry that the output does not mention counts as not taken.
 * @param {import("@aws-sdk/client-sqs").SendMessageBatchCommandOutput} output
 * @param {string} id
 * @returns {Result}
 */
function resultOf({ Successful = [], Failed = [] }, id) {
  if (Successful.some((taken) => taken.Id === id)) return undefined;
  const failed = Failed.find((entry) => entry.Id === id);
  if (!failed) return { kind: "not_taken", cause: "the queue's answer does not mention it" };
  const { Code: code = "", Message: message = "", SenderFault } = failed;
  if (isRefusal(code, SenderFault)) return { kind: "refused", code, message };
  return { kind: "not_taken", cause: `${code}: ${message}` };
}

/** @param {any} error of the SDK @returns {Failure} */
function failureOf(error) {
  const message = String(error?.message ?? error);
  const cause = misconfiguration(error, message);
  if (cause) return { kind: "not_configured", cause };
  // An answer of SQS, and not an error of this machine.
  const isAnswer = error?.$metadata?.httpStatusCode !== undefined;
  const code = [error?.Code, error?.name].find((code) => typeof code === "string" && isFinal(code));
  if (isAnswer && code) return { kind: "refused", code, message };
  const name = error?.code ?? error?.Code ?? error?.name ?? "error";
  return { kind: "not_taken", cause: isAnswer ? `${name}: ${message}` : `no answer: ${name}` };
}

/**
 * Returns why the client can make no call, if its configuration is the reason. A source of credentials that failed may work
 * at the next attempt.
 * @param {any} error
 * @param {string} message
 */
function misconfiguration(error, message) {
  if (message === "Region is missing") return "there is no Region";
  if (error?.name === "CredentialsProviderError" && /could not load credentials/i.test(message)) return "there are no credentials";
  if (error?.name === "EndpointError" || error?.code === "ERR_INVALID_URL") return message;
  return undefined;
}

/** One call to the queue, and its result for each entry. */

import { SendMessageBatchCommand } from "@aws-sdk/client-sqs";
import { isClockSkew, isFinal, isMessageFault, isRefusal } from "./errors.js";

/**
 * Why the queue does not have an entry: it would refuse it again; or no call can be made, because of the client; or a retry
 * can succeed, and the entry may be on the queue. `error` is that of the SDK.
 *
 * @typedef {{ kind: "refused", code: string, message: string, error?: unknown }} Refused
 * @typedef {{ kind: "not_configured" | "not_taken", text: string, error?: unknown }} NotTaken
 * @typedef {Refused | NotTaken} Failure
 */

/** The result of an entry: nothing if the queue has it. @typedef {Failure | undefined} Result */

/** Time limit of the calls for a batch in milliseconds; after it, the entries without an answer are retried. */
export const CALL_TIMEOUT = 5000;

/** @type {Result} */
export const NO_ANSWER = { kind: "not_taken", text: `the queue did not answer within ${CALL_TIMEOUT / 1000} s` };

/** The place of the SDK's retries in a call. */
const SDK_RETRIES = /** @type {const} */ ({ name: "retryMiddleware", step: "finalizeRequest", priority: "high", override: true });

/** @param {string} url */
export const isFifo = (url) => url.endsWith(".fifo");

/** The queue that a producer sends to. */
export class Queue {
  #client;
  #url;
  /** Whether the queue has answered a call. The client then has credentials, and loses them only for a time. */
  #hasAnswered = false;

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
    // The retries of the client would multiply those of the producer.
    command.middlewareStack.add((next) => (args) => next(args), SDK_RETRIES);
    try {
      const output = await this.#client.send(command, { abortSignal: signal });
      this.#hasAnswered = true;
      return entries.map((_, index) => resultOf(output, String(index)));
    } catch (error) {
      this.#hasAnswered ||= isAnswer(error);
      return Array(entries.length).fill(signal.aborted ? NO_ANSWER : failureOf(error, this.#hasAnswered));
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
  if (!failed) return { kind: "not_taken", text: "the queue's answer does not mention it" };
  const { Code: code = "", Message: message = "", SenderFault } = failed;
  if (isRefusal(code, SenderFault)) return { kind: "refused", code, message };
  return { kind: "not_taken", text: `${code}: ${message}` };
}

/** Returns whether an error is an answer of SQS, and not an error of this machine. @param {any} error */
const isAnswer = (error) => error?.$metadata?.httpStatusCode !== undefined;

/** @param {any} error of the SDK @param {boolean} hasAnswered @returns {Failure} */
function failureOf(error, hasAnswered) {
  const message = String(error?.message ?? error);
  const name = String(error?.code ?? error?.Code ?? error?.name ?? "error");
  if (!isAnswer(error)) {
    const fault = clientFault(error, message, hasAnswered);
    if (fault) return { kind: "not_configured", text: fault, error };
    // The message of a source of credentials may hold these.
    const isSecret = error?.name === "CredentialsProviderError";
    const text = isSecret ? "the credentials could not be loaded (see the error's cause)" : nameAndMessage(name, message);
    return { kind: "not_taken", text: `no answer: ${text}`, error };
  }
  const code = [error.Code, error.name].find((code) => typeof code === "string" && isFinal(code));
  // With the corrected clock, the same call can succeed.
  const isTransient = error.$metadata.clockSkewCorrected === true || (code && isClockSkew(code, message));
  if (code && !isTransient) return { kind: "refused", code, message, error };
  return { kind: "not_taken", text: `${name}: ${message}`, error };
}

/** @param {string} name @param {string} message */
const nameAndMessage = (name, message) => (message.includes(name) ? message : [name, message].filter(Boolean).join(": "));

const CONFIGURE = "set the client's credentials, Region and endpoint";

/**
 * Returns why the client can make no call, and the remedy, if a retry would fail, too. Credentials that cannot be loaded are
 * missing, unless the queue has answered before: their source may then work at the next attempt.
 * @param {any} error
 * @param {string} message
 * @param {boolean} hasAnswered
 */
function clientFault(error, message, hasAnswered) {
  if (message === "Region is missing") return `there is no Region; ${CONFIGURE}`;
  if (error?.name === "EndpointError" || error?.code === "ERR_INVALID_URL") return `${message}; ${CONFIGURE}`;
  if (error?.name === "CredentialsProviderError") {
    const isMissing = /could not (load|resolve) credentials/i.test(message);
    if (isMissing) return hasAnswered ? undefined : `there are no credentials; ${CONFIGURE}`;
    // Only a person can renew a session. The SDK says how.
    return /aws sso login|re-?authenticate/i.test(message) ? message : undefined;
  }
  // `fetch` throws a TypeError with a cause if it has no connection.
  const isDefect = error instanceof ReferenceError || (error instanceof TypeError && error.cause === undefined);
  return isDefect ? `${error.name}: ${message}; correct the client or its middleware` : undefined;
}

/**
 * The errors of the producer. Each has a `kind` for programs, and its text says what to do. No text holds a payload. The error
 * of the SDK is the `cause`.
 */

/**
 * @typedef {"expiry" | "duration" | "keep" | "keep_audience" | "kept_payload" | "no_request"} OptionKind
 * @typedef {"percent" | "text" | "flag" | "payload_not_json" | "payload_too_large"} ContentKind
 * @typedef {"id" | "no_recipient" | OptionKind | ContentKind} MessageKind
 * @typedef {"tenant_on_fifo" | "refused" | "not_configured" | "timed_out" | "aborted" | "closed"} SendKind
 * @typedef {"backwards" | "ended"} ProgressKind
 */

/** Codes of errors that SQS would give again to the same call, without prefixes such as `AWS.SimpleQueueService.`. */
const FINAL = new Set([
  "AccessDenied",
  "AccessDeniedException",
  // Of KMS, which encrypts the queue.
  "DisabledException",
  "InvalidKeyUsageException",
  "InvalidStateException",
  "NotFoundException",
  "InvalidAction",
  "InvalidAddress",
  "InvalidClientTokenId",
  "InvalidSecurity",
  "InvalidSignatureException",
  "MissingAuthenticationToken",
  "NonExistentQueue",
  "NotAuthorized",
  "OptInRequired",
  "QueueDoesNotExist",
  "SignatureDoesNotMatch",
  "TooManyEntriesInBatchRequest",
  "UnrecognizedClientException",
  "UnsupportedOperation",
  "BatchEntryIdsNotDistinct",
]);

/** Codes of final errors of a call that one of its messages may have caused. */
const MESSAGE_FAULTS = new Set([
  "BatchRequestTooLong",
  "InvalidMessageContents",
  "InvalidParameterValue",
  "MissingParameter",
  "ValidationError",
]);

const THROTTLING = new Set(["RequestThrottled", "Throttling", "ThrottlingException"]);

/** Codes of a signature that is not valid, for its time or for another reason. */
const SIGNATURE_FAULTS = new Set(["InvalidSignatureException", "SignatureDoesNotMatch"]);

/** @param {string} code */
const withoutPrefix = (code) => code.slice(code.lastIndexOf(".") + 1);

/** Returns whether one message of a call may have caused the error of the whole call. @param {string} code */
export const isMessageFault = (code) => MESSAGE_FAULTS.has(withoutPrefix(code));

/** Returns whether the queue would answer the same call with the same error again. @param {string} code */
export const isFinal = (code) => FINAL.has(withoutPrefix(code)) || isMessageFault(code);

/**
 * Returns whether an error says that the time of a signature is more than 15 minutes from that of AWS. A Lambda may have been
 * frozen after it was made, and the SDK learns the clock's offset from the answer, so a new signature can succeed.
 * @param {string} code
 * @param {string} message
 */
export const isClockSkew = (code, message) =>
  SIGNATURE_FAULTS.has(withoutPrefix(code)) && /^Signature (expired|not yet current)/.test(message);

/**
 * Returns whether a retry of an entry of a call would fail again. SQS reports throttling as the sender's fault, too.
 * @param {string} code
 * @param {boolean} [senderFault]
 */
export const isRefusal = (code, senderFault) =>
  isFinal(code) || (senderFault === true && !THROTTLING.has(withoutPrefix(code)));

/** A message cannot be built: correct the value that the text names. */
export class MessageError extends Error {
  name = "MessageError";

  /**
   * @param {MessageKind} kind
   * @param {string} text
   * @param {{ cause?: unknown }} [details]
   */
  constructor(kind, text, { cause } = {}) {
    super(text, cause === undefined ? undefined : { cause });
    /** The kind of the error. @readonly */
    this.kind = kind;
  }
}

/**
 * A message is not on the queue for all its recipients. A message for more than 100 connections, on a FIFO queue for more
 * than one, consists of several entries. The error is that of one of them, a fault of the queue first. With each kind except
 * `tenant_on_fifo` and `closed`, the queue may have the others.
 */
export class SendError extends Error {
  name = "SendError";

  /**
   * @param {SendKind} kind
   * @param {string} text
   * @param {{ code?: string, cause?: unknown }} [details]
   */
  constructor(kind, text, { code, cause } = {}) {
    super(text, cause === undefined ? undefined : { cause });
    /** The kind of the error. @readonly */
    this.kind = kind;
    /** The code of SQS, such as `InvalidMessageContents`, if the queue refused the message. @readonly */
    this.code = code;
  }

  /**
   * Whether the queue or the client is at fault instead of the message, and permanently: every other message would fail,
   * too. A program that sends many messages ends at such an error.
   */
  get isQueueFault() {
    if (this.kind === "refused") return isFinal(this.code ?? "") && !isMessageFault(this.code ?? "");
    return this.kind === "not_configured" || this.kind === "closed";
  }
}

/** Some of many messages are not on the queue; the others are. */
export class SendAllError extends Error {
  name = "SendAllError";

  /**
   * @param {number} total
   * @param {{ index: number, id: string, error: SendError }[]} unsent
   */
  constructor(total, unsent) {
    super(`${unsent.length} of ${total} messages are not on the queue; the first: ${unsent[0].id}: ${unsent[0].error.message}`);
    /** The number of messages that were to be sent. @readonly */
    this.total = total;
    /**
     * The messages that are not on the queue for all their recipients: their places in the call, ids and errors. Send these
     * again, except refused ones.
     * @readonly
     */
    this.unsent = unsent;
  }
}

/**
 * Returns the error of a message of which two entries have failed: that of the queue, if there is one.
 * @param {SendError | undefined} first
 * @param {SendError} second
 */
export const errorOfTwo = (first, second) => (first?.isQueueFault ? first : second);

/** An update or an end of a request's progress is not valid at this point. */
export class ProgressError extends Error {
  name = "ProgressError";

  /**
   * @param {ProgressKind} kind
   * @param {string} text
   */
  constructor(kind, text) {
    super(text);
    /** The kind of the error. @readonly */
    this.kind = kind;
  }
}

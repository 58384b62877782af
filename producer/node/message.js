/** Messages, and the builder for them. */

import { checkFlag, checkKeep, checkText, optionalText } from "./checks.js";
import { entriesOf } from "./entry.js";
import { MessageError } from "./errors.js";
import { checkConnectionId, checkMessageId, checkRequestId, checkTenantId, checkUserId, newMessageId, nextSeq } from "./ids.js";
import { checkValue, optionalValue, payloadOf, payloadOfText } from "./json.js";
import { NEVER } from "./limits.js";
import { checkPercent } from "./percent.js";
import { expiryOf, keepSecondsOf, millisecondsOf } from "./time.js";
import { traceOf } from "./trace.js";

/** @typedef {import("./entry.js").Fields} Fields */
/** @typedef {import("./entry.js").Recipients} Recipients */

/**
 * @typedef {object} Options
 * @property {Recipients} to
 * @property {string} [fairQueueTenant]
 * @property {string} [id]
 * @property {string} [request]
 * @property {boolean} [supersedable]
 * @property {() => number} [expiresAt]
 * @property {number} [keep]
 * @property {boolean} [receipt]
 * @property {string} [trace]
 */

// The classes give this module access to what is private in them.
/** @type {(fields: Fields) => Message} */
let newMessage;
/** @type {(message: Message) => Fields} */
let readFields;
/** @type {(options: Options) => MessageBuilder} */
let newBuilder;
/** @type {(builder: MessageBuilder) => Options} */
let readOptions;

/** Returns the fields of a message. @param {Message} message */
export const fieldsOf = (message) => readFields(message);

/** Returns a builder with these options. @param {Options} options */
export const builderOf = (options) => newBuilder(options);

/** Returns the options of a builder. @param {MessageBuilder} builder */
export const optionsOf = (builder) => readOptions(builder);

/**
 * A valid message, within every limit, that `Producer.send` can send. Its static methods name the audience and return a
 * builder, which makes it.
 */
export class Message {
  /** Private, because a payload may be confidential: `console.log` does not show it. @type {Fields} */
  #fields;

  static {
    newMessage = (fields) => new Message(fields);
    readFields = (message) => message.#fields;
  }

  /** @private @param {Fields} fields */
  constructor(fields) {
    this.#fields = fields;
  }

  /** Begins a message for one connection. @param {string} id */
  static connection(id) {
    return Message.connections([id]);
  }

  /**
   * Begins a message for any number of connections. On the queue, 100 connections share a message; on a FIFO queue, each
   * has its own. A text is one id.
   * @param {Iterable<string>} ids
   */
  static connections(ids) {
    const connections = Array.from(typeof ids === "string" ? [ids] : ids, checkConnectionId);
    if (!connections.length) {
      throw new MessageError("no_recipient", "the message has no recipient: name at least one connection");
    }
    return newBuilder({ to: { connections } });
  }

  /**
   * Begins a message for the connections that a user has when it is delivered, or opens within the worker's away grace
   * (30 s by default). Use it for work that may outlive a socket, which API Gateway closes after 2 hours.
   * @param {string} tenant
   * @param {string} user
   */
  static user(tenant, user) {
    return newBuilder({ to: { user: { tenant: checkTenantId(tenant), user: checkUserId(user) } } });
  }

  /** Begins a message for all connections of a tenant. A FIFO queue takes no such message. @param {string} tenant */
  static tenant(tenant) {
    return newBuilder({ to: { tenant: checkTenantId(tenant) } });
  }

  /** The message's id. */
  get id() {
    return this.#fields.id;
  }

  /**
   * Returns the bodies that `Producer.send` puts on a standard queue: one, or one for each 100 connections. A program
   * publishes them itself on an SNS topic with raw message delivery, in front of the queues of several cells.
   */
  bodies() {
    return Array.from(entriesOf(this.#fields, false), ({ body }) => body);
  }
}

/**
 * A message without content. Each option returns another builder, so that one builder serves several messages. A method
 * throws a `MessageError` for a value that is not valid.
 */
export class MessageBuilder {
  /** @type {Options} */
  #options;

  static {
    newBuilder = (options) => new MessageBuilder(options);
    readOptions = (builder) => builder.#options;
  }

  /** @private @param {Options} options */
  constructor(options) {
    this.#options = options;
  }

  /** @param {Partial<Options>} options */
  #with(options) {
    return new MessageBuilder({ ...this.#options, ...options });
  }

  /**
   * Sets the id, 1 to 128 characters. A producer that may be retried, such as a Lambda, derives the id from its input,
   * so that a retry sends the same message. The default is a new UUIDv7.
   * @param {string} id
   */
  id(id) {
    return this.#with({ id: checkMessageId(id) });
  }

  /**
   * Sets the id of the request that the message belongs to, 1 to 128 characters. The message's sequence number within
   * the request (`seq`) is the clock in microseconds.
   * @param {string} id
   */
  request(id) {
    return this.#with({ request: checkRequestId(id) });
  }

  /**
   * Sets how long from now the message is worth delivering, such as `{ seconds: 5 }`. By default it never expires.
   * @param {import("./time.js").Duration} duration
   */
  expiresIn(duration) {
    const milliseconds = millisecondsOf(duration);
    return this.#with({ expiresAt: () => Math.floor(Math.min(Date.now() + milliseconds, NEVER)) });
  }

  /**
   * Sets the time until which the message is worth delivering: a date, or milliseconds since the epoch. A time before
   * 3 March 1973 is refused, because it is a number of seconds that was taken for milliseconds.
   * @param {Date | number} time
   */
  expiresAt(time) {
    const expiry = expiryOf(time);
    return this.#with({ expiresAt: () => expiry });
  }

  /**
   * Keeps the message for a user who is away, for 60 s to 30 days in whole seconds, such as `{ days: 7 }`. A kept payload
   * has at most 127 KiB. A message that also expires is kept until the earlier of the two. The deployment needs a mailbox.
   * @param {import("./time.js").Duration} duration
   */
  keep(duration) {
    return this.#with({ keep: keepSecondsOf(duration) });
  }

  /** Asks for a receipt: the worker sends the message's outcome to the deployment's receipts queue. */
  receipt() {
    return this.#with({ receipt: true });
  }

  /**
   * Sets whether a later message of the same request makes this one worthless. By default, that is so for progress only.
   * @param {boolean} supersedable
   */
  supersedable(supersedable) {
    return this.#with({ supersedable: checkFlag("supersedable", supersedable) });
  }

  /**
   * Sets the tenant of the connections, for SQS fair queues: on a standard queue, SQS delays the messages of a tenant
   * that sends very many, and not those of other tenants. Messages for a user or a tenant have the group in any case.
   * @param {string} tenant
   */
  fairQueueTenant(tenant) {
    return this.#with({ fairQueueTenant: checkTenantId(tenant) });
  }

  /**
   * Sets the X-Ray trace header that travels with the message. In Lambda, the default is that of the current invocation.
   * A text that SQS would refuse is dropped.
   * @param {string} header
   */
  trace(header) {
    return this.#with({ trace: checkText("trace", header) });
  }

  /** Builds an `acknowledgment`: the request has arrived, and work on it has begun. @param {string} [message] for people */
  acknowledgment(message) {
    return this.#content({ type: "acknowledgment", message: optionalText("message", message) });
  }

  /**
   * Builds a `progress`.
   * @param {number} percent of the work that is done, a whole number from 0 to 100
   * @param {string} [message] for people
   * @param {unknown} [details] any JSON
   */
  progress(percent, message, details) {
    const progress = checkPercent(percent);
    const text = optionalText("message", message);
    return this.#content({ type: "progress", progress, message: text, details: optionalValue(details) }, true);
  }

  /** Builds a `response`: the answer to a request that is answered at once. @param {unknown} data any JSON */
  response(data) {
    return this.#content({ type: "response", data: checkValue(data) });
  }

  /** Builds a `complete`: the work on a request has ended with this result. @param {unknown} result any JSON */
  complete(result) {
    return this.#content({ type: "complete", result: checkValue(result) });
  }

  /**
   * Builds an `error`: the request failed.
   * @param {string} code for programs
   * @param {string} message for people
   * @param {unknown} [details] any JSON
   */
  error(code, message, details) {
    const error = { code: checkText("code", code), message: checkText("message", message), details: optionalValue(details) };
    return this.#content({ type: "error", error });
  }

  /**
   * Builds a message whose payload is any value, as its JSON. It holds the message's id only if the value does, and only
   * then can clients recognise a second delivery.
   * @param {unknown} value
   */
  payload(value) {
    return this.#build(false, () => payloadOf(value));
  }

  /** Builds a message whose payload is this JSON text, delivered unchanged. @param {string} text */
  json(text) {
    return this.#build(false, () => payloadOfText(checkText("text", text)));
  }

  /** @param {object} content @param {boolean} [supersedable] */
  #content(content, supersedable = false) {
    // `JSON.stringify` leaves out what is undefined.
    return this.#build(supersedable, (id, request) =>
      payloadOf({ ...content, request_id: request?.id, id, seq: request?.seq }),
    );
  }

  /**
   * @param {boolean} supersedable
   * @param {(id: string, request?: { id: string, seq: number }) => string} payloadFor
   */
  #build(supersedable, payloadFor) {
    const { expiresAt, receipt = false, ...options } = this.#options;
    const id = options.id ?? newMessageId();
    const request = options.request === undefined ? undefined : { id: options.request, seq: nextSeq() };
    const payload = payloadFor(id, request);
    checkKeep(options, payload);
    return newMessage({
      ...options,
      supersedable: options.supersedable ?? supersedable,
      id,
      request,
      payload,
      receipt,
      expiresAt: expiresAt?.(),
      trace: traceOf(options.trace),
    });
  }
}

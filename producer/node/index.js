/**
 * Sends messages to clients of a WebSocket API through Streamer's outbound queue.
 *
 * `Message` names the audience; its builder takes options, and then the content. `Producer` sends messages to the queue.
 * `Progress` sends the updates of one request at a limited rate, and then its end.
 */

export { MessageError, ProgressError, SendAllError, SendError } from "./errors.js";
export { Message, MessageBuilder } from "./message.js";
export { percentOf } from "./percent.js";
export { Producer } from "./producer.js";
export { Progress } from "./progress.js";

/** @typedef {import("./errors.js").MessageKind} MessageKind */
/** @typedef {import("./errors.js").ProgressKind} ProgressKind */
/** @typedef {import("./errors.js").SendKind} SendKind */
/** @typedef {import("./producer.js").ProducerOptions} ProducerOptions */
/** @typedef {import("./producer.js").SendOptions} SendOptions */
/** @typedef {import("./progress.js").ProgressOptions} ProgressOptions */
/** @typedef {import("./time.js").Duration} Duration */

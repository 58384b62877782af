/** Which values are frames of Streamer that can be read. */

/** @param {any} value */
export const isNumber = (value) => Number.isSafeInteger(value) && value >= 0;

/** @param {any} value */
export const isId = (value) => !!value && typeof value === "string";

/** @param {any} message */
const isMessage = (message) => isNumber(message.seq) && isId(message.id);

/**
 * Returns whether a frame is a pong, or a page or a kept message that can be read.
 * @param {any} frame
 * @throws {TypeError} if it can't
 */
export const isFrame = (frame) =>
  frame.type === "streamer.pong" ||
  (frame.stream === "user" &&
    isId(frame.epoch) &&
    (frame.messages
      ? isNumber(frame.after) &&
        isNumber(frame.through) &&
        frame.messages.every(isMessage) &&
        frame.missing.every((/** @type {any} */ range) => isNumber(range.to))
      : isMessage(frame)));

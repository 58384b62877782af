/** The errors of the client. */

/** @type {(name: string, doc?: string) => new (message?: string) => Error} */
const named = (name) =>
  class extends Error {
    name = name;
  };

/** Thrown by a token callback, it ends the client in the state `failed`. */
export class Unauthorized extends named("Unauthorized") {}

/** The frame is larger than 32 KiB: send a reference to the data. */
export class TooLargeError extends named("TooLargeError") {}

/** No connection is open: send again when the state is `connected`, or use `request`. */
export class ClosedError extends named("ClosedError") {}

/** The API has no mailbox: set `mailbox = true` in the Terraform module, or leave the option `mailbox` out. */
export class UnsupportedError extends named("UnsupportedError") {}

/** The server answered a request with an error. */
export class RequestError extends named("RequestError") {
  /** @param {{ code: string, message: string, details?: any }} error */
  constructor({ code, message, details }) {
    super(message);
    /** For programs, such as `invalid_request`. */
    this.code = code;
    this.details = details;
  }
}

/** The errors of the client. */

/** @param {string} name */
const named = (name) =>
  class extends Error {
    name = name;
  };

/** Thrown by a token callback, it ends the client in the state `failed`. */
export const Unauthorized = named("Unauthorized");

/** The frame is larger than 32 KiB: send a reference to the data. */
export const TooLargeError = named("TooLargeError");

/** No connection is open: send again when the state is `connected`, or use `request`. */
export const ClosedError = named("ClosedError");

/**
 * The server answered a request with an error. `code` is for programs, such as `invalid_request`.
 * @typedef {Error & { code?: string, details?: any }} RequestError
 */
export const RequestError = /** @type {new (error: { code?: string, message?: string, details?: any }) => RequestError} */ (
  class extends named("RequestError") {
    /** @param {{ code?: string, message?: string, details?: any }} error */
    constructor(error) {
      super(error.message);
      Object.assign(this, error);
    }
  }
);

/** The limits of a message. `docs/reference/limits.md` has them all, with their sources. */

/** Maximum size of a payload in bytes. */
export const PAYLOAD_BYTES = 128 * 1024;

/** Maximum size in bytes of a payload that is kept. */
export const KEPT_PAYLOAD_BYTES = 127 * 1024;

/** Maximum number of connections that a message on the queue names. */
export const CONNECTIONS = 100;

/** Maximum number of messages in a call to the queue. */
export const BATCH_MESSAGES = 10;

/** Maximum size in bytes of all messages in a call to the queue. */
export const BATCH_BYTES = 1024 * 1024;

/** Maximum number of characters of the id of a message, a request or a connection. */
export const ID_CHARACTERS = 128;

/** Maximum size in bytes of the id of a tenant or a user. */
export const PRINCIPAL_BYTES = 256;

/** Seconds for which a message can be kept. */
export const KEEP_SECONDS = { from: 60, to: 2_592_000 };

/** The earliest expiry in milliseconds since the epoch, 3 March 1973. A lower number is a time in seconds. */
export const EARLIEST = 100_000_000_000;

/** The latest expiry in milliseconds since the epoch, the end of the year 9999. A higher number is a time in microseconds. */
export const NEVER = 253_402_300_799_999;

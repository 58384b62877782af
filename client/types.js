/**
 * The types of the client's interface. This file has no code.
 *
 * @typedef {import("./core.js").Status} Status
 * @typedef {{ state: Status, reason?: string, retryIn?: number }} StateEvent `retryIn` is in milliseconds
 */

/**
 * @template [Incoming=any]
 * @typedef {{ id?: string, seq?: number, kept: boolean, replayed: boolean, data: Incoming }} Message
 *   `seq` is the number of a kept message in the user's stream. `replayed`: it came with a page, not live.
 */

/**
 * @typedef {{ epoch: string, seq: number }} Position
 * @typedef {{ reason: string, from?: number, to?: number, count?: number }} Gap messages that can't be shown any more.
 *   `reason` is `expired`, `overflow`, `epoch` or `ahead` for kept messages, and `dropped` for others that the handler
 *   was too slow for. Without `count`, their number is unknown.
 * @typedef {{ error: any, source: "handler" | "storage" | "token" | "server" }} ErrorEvent
 */

/**
 * @template [Incoming=any]
 * @typedef {{ state: StateEvent, message: Message<Incoming>, gap: Gap, caughtUp: { replayed: number }, error: ErrorEvent }} Events
 */

/**
 * @typedef {object} Mailbox
 * @property {"oldest" | "now"} [from] Where a client without a position begins. Default: `oldest`.
 * @property {{ getItem(key: string): string | null, setItem(key: string, value: string): void }} [storage] Keeps the
 *   position, such as `sessionStorage`. Without it, a reload begins at `from` again.
 * @property {string} [key] Part of the storage key, besides a hash of the token's user and tenant.
 */

/**
 * @typedef {object} Options
 * @property {(reason: { refused: boolean }) => string | Promise<string>} token Returns a token for each connection.
 *   `refused`: the last three handshakes failed, so a cached token may be at fault. Throws `Unauthorized` to stop.
 * @property {"subprotocol" | "query"} [auth] Where the token goes. A query string ends up in access logs.
 * @property {Mailbox} [mailbox] Reads kept messages. Without it, the client has no mailbox.
 * @property {{ min?: number, max?: number }} [backoff] The first and the largest window of delays in milliseconds.
 *   Default: 1 000 and 60 000.
 * @property {boolean} [rotate] Whether to replace a connection before API Gateway ends it after 2 h. Default: `true`.
 * @property {any} [WebSocket] The class of sockets. Default: the one of `window`.
 * @property {any} [window] Has `WebSocket`, `setTimeout`, `clearTimeout`, and in browsers the events `online` and
 *   `pageshow` and a `document`. Default: the global object.
 * @property {() => number} [now] Returns the time in milliseconds. Default: `Date.now`.
 * @property {() => number} [random] Returns numbers from 0 (inclusive) to 1 (exclusive). Default: `Math.random`.
 */

export {};

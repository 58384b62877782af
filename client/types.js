/**
 * The types of the client's interface. This file has no code.
 *
 * @typedef {"idle" | "connecting" | "connected" | "caughtUp" | "waiting" | "closed" | "failed"} Status
 * @typedef {{ state: Status, reason?: string, retryIn?: number }} StateEvent `retryIn` is in milliseconds
 */

/**
 * @template [Incoming=any]
 * @typedef {{ id?: string, seq?: number, kept: boolean, replayed: boolean, data: Incoming }} Message
 *   `seq` is the number of a kept message in the user's stream. `replayed`: it came with a page, not live.
 */

/**
 * @typedef {{ epoch: string, seq: number }} Position
 * @typedef {Position & { ids: string[] }} Stored a position and the ids of the last messages before it
 * @typedef {{ reason: string, from?: number, to?: number, count?: number }} Gap messages that can't be shown any more.
 *   `reason` is `expired`, `overflow`, `too_large`, `epoch` or `ahead` for kept messages, and `dropped` for others that the handler
 *   was too slow for. Without `count`, their number is unknown.
 * @typedef {{ error: any, source: "handler" | "storage" | "token" | "server" }} ErrorEvent
 */

/** @typedef {{ progress: number, message?: string, details?: any, seq?: number }} Progress */

/**
 * A request: `await` returns its result, `for await` its progress, only the newest if the loop is slow. Both throw a
 * `RequestError` if the server answers with an error.
 * @template [Result=any]
 * @typedef {Promise<Result> & AsyncIterable<Progress> & { id: string, acknowledged: Promise<void>, cancel(): void }} Job
 *   `id` is the `request_id`, with which the request is resumed after a reload. `acknowledged` resolves when an answer
 *   has come. `cancel` ends the wait for an answer; the server does not hear of it.
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
 * @property {any} [WebSocket] The class of sockets. Default: the one of `window`.
 * @property {any} [window] Has `WebSocket`, `setTimeout`, `clearTimeout`, and in browsers the events `online` and
 *   `pageshow` and a `document`. Default: the global object.
 * @property {() => number} [now] Returns the time in milliseconds. Default: `Date.now`.
 * @property {() => number} [random] Returns numbers from 0 (inclusive) to 1 (exclusive). Default: `Math.random`.
 */

/**
 * @template [Incoming=any]
 * @template [Outgoing=any]
 * @typedef {object} Client
 * @property {Status} state The state of the connection.
 * @property {Position | undefined} position The position of the last kept message that was handled.
 * @property {<Name extends keyof Events>(name: Name, call: (event: Events<Incoming>[Name]) => unknown) => () => void} on
 *   Calls back on each event, and returns a function that ends the calls. A handler of `message` may be asynchronous:
 *   the next message waits for it.
 * @property {<Name extends keyof Events>(name: Name, call: (event: Events<Incoming>[Name]) => unknown) => void} off
 *   Ends the calls of `on`.
 * @property {() => Promise<void>} connect Connects, and stays connected until `close`. Resolves at the first
 *   connection. Throws the `Unauthorized` of the token callback.
 * @property {() => Promise<void>} caughtUp Resolves when every kept message up to the newest one was handled. Throws a
 *   `RequestError` with the code `unsupported` if there is no mailbox.
 * @property {() => AsyncGenerator<Message<Incoming>, void, void>} messages Returns messages one by one until the client
 *   ends. A message counts as handled when the loop asks for the next one, or is left.
 * @property {<Result = any>(request: Outgoing, options?: { resend?: boolean }) => Job<Result>} request Sends an object,
 *   whose `request_id` is random unless it has one. It is sent again with the same `request_id` on each new connection
 *   until an answer has come, unless `resend` is `false`. At most 1 000 requests wait.
 * @property {<Result = any>(id: string) => Job<Result>} resume Returns the job of a request that was sent before a reload.
 * @property {(value: Outgoing) => Promise<void>} send Sends a value once. Throws a `TooLargeError` above 32 KiB, and a
 *   `ClosedError` if no connection is open.
 * @property {() => Promise<void>} close Closes the connection for good.
 */

/**
 * The parts of the client that a stream uses.
 * @typedef {object} Host
 * @property {(type: string, fields?: object) => void} send Sends a frame on the newest socket.
 * @property {() => void} registered Closes the socket before the newest one.
 * @property {() => void} reconnect Closes all sockets and opens another one.
 * @property {() => void} unsupported Tells that there is no mailbox.
 * @property {(payload: any) => boolean} answer Gives a payload to the request that waits for it, if one does.
 * @property {(message: Message) => boolean | void} deliver Hands a message to the handler, unless it returns `true`. The next
 *   one follows after the event `handled`.
 * @property {(effect: "gap" | "caughtUp" | "store", value: any) => void} emit Tells the application of a gap, or that
 *   it has everything; or stores a position with ids.
 */

/**
 * @typedef {{ message: Message, bytes: number, skip?: boolean, ack?: boolean }} Entry a message of a stream. `skip`: it
 *   needs no handler, since it is a repeated one, or the answer of a request. `ack`: the producer wants an acknowledgment
 */

/**
 * The effects and the events of the core.
 *
 * @typedef {["open", socket: number, refused: boolean] | ["close", socket: number] |
 *   ["send", socket: number, text: string] | ["deliver", Message] |
 *   ["answer", import("./requests.js").Answer] | ["store", Stored] |
 *   ["gap", Gap] | ["caughtUp", { replayed: number }] | ["error", ErrorEvent] |
 *   ["state", StateEvent]} Effect
 * @typedef {["connect"] | ["restored", Stored] | ["opened", socket: number] |
 *   ["closed", socket: number, reason?: string] | ["frame", socket: number, text: any] |
 *   ["handled", failed?: boolean] | ["send", text: string] | ["request", id: string, text?: string, resend?: boolean] | ["cancel", id: string] |
 *   ["check", wasAway: boolean] | ["woken"] | ["end", "closed" | "failed", reason?: string]} Event
 */

/**
 * The frames, as the JSON Schemas in `message/schema/` have them.
 *
 * @typedef {{ stream: "user", epoch?: string | null, seq?: number | null, from?: "oldest" | "now" | null }} StreamRequest
 * @typedef {{ type: "streamer.sync", n?: number, hello?: boolean, max?: number | null, streams: StreamRequest[] }} SyncFrame
 * @typedef {{ type: "streamer.ack", ids: string[] }} AckFrame
 * @typedef {SyncFrame | AckFrame | { type: "streamer.ping" }} ClientFrame
 * @typedef {{ seq: number, id: string, payload: unknown, ack?: boolean }} PageMessage
 * @typedef {{ type: "streamer.message", stream: "user", epoch: string } & PageMessage} MessageFrame
 * @typedef {{ from: number, to: number, reason: "expired" | "overflow" | "too_large" }} Missing
 * @typedef {{ type: "streamer.page", n: number, stream: "user", epoch: string, after: number, through: number, top: number,
 *   messages: PageMessage[], missing: Missing[], reset?: "epoch" | "ahead" | null, expires_in: number, now: number
 *   }} PageFrame
 * @typedef {MessageFrame | PageFrame | { type: "streamer.pong" }} ServerFrame
 */

/**
 * Messages of the producer library, as `client-message.json` has them.
 *
 * @typedef {{ id: string, request_id?: string | null, seq?: number | null }} Common
 * @typedef {{ code: string, message: string, details?: unknown }} ClientError
 * @typedef {Common & ({ type: "acknowledgment", message?: string | null } |
 *   { type: "progress", progress: number, message?: string | null, details?: unknown } |
 *   { type: "response", data: unknown } | { type: "complete", result: unknown } |
 *   { type: "error", error: ClientError })} ClientMessage
 */

export {};

/** The limits and times of the client. Times are in milliseconds. */

export const SECOND = 1000;
export const MINUTE = 60_000;

/** Time for a token and a handshake. */
export const OPEN_TIME = 30_000;
/** Factor by which the longest delay before an attempt grows. `npm run storm` measures it. */
export const GROWTH = 1.3;
/** Seconds after which API Gateway ends a connection. */
export const LIFE = 7200;
/** Longest time from a rotation to the end of the connection, and the longest random part of it. */
export const LEAD = 1_200_000;
export const JITTER = 900_000;
/** Time after which an open socket shows that the server can be reached. */
export const STABLE = 10_000;
/** Handshakes that fail in a row before the token is asked for with `refused`. */
export const MAX_REFUSED = 3;
/** Idle time after which a sync or a ping is sent, ± 10 %. API Gateway ends a connection after 10 idle minutes. */
export const IDLE = 480_000;
/** Time for a pong. */
export const PONG_TIME = 4000;
/** Longest time of a timer, and the delay of one that shows that the machine was asleep. */
export const TICK = 30_000;

/** Largest frame in bytes. API Gateway closes a connection with 1009 at a larger one. */
export const MAX_FRAME = 32_768;
/** Requests that have not ended. */
export const MAX_REQUESTS = 1000;
/** Ids of messages, and requests, of which the last ones are remembered. */
export const MAX_ENTRIES = 1000;

/** Time for which a hole may stay before the client asks for a page. */
export const HOLE = 300;
/** Time for which the client waits for a page. */
export const PAGE = 5000;
/** Longest delay before the next sync after one without a page. */
export const MAX_DELAY = 30_000;
/** Syncs without a page after which the client reconnects. */
export const MAX_SYNCS = 3;
/** Syncs without a page after which a client that never had one takes the mailbox for absent. */
export const MAX_FIRST_SYNCS = 9;
/** Messages that wait for their turn or for the handler, and their bytes. */
export const MAX_MESSAGES = 1000;
export const MAX_BYTES = 4_194_304;
/** Ids that are stored with the position. */
export const IDS = 128;
/** Ids in an acknowledgment. */
export const ACK_IDS = 10;

/**
 * The entries that are being sent, and the choice of the next batch. Pure: the caller passes the time, and there is no I/O.
 *
 * An entry takes its turn when its sender asks for it. It is *reserved* until there is capacity for it, then *waiting*,
 * *in flight* in a call, or *backing off* between two attempts. Entries with the same key keep their order: an entry leaves
 * when all earlier ones have completed, or behind them in the same call. With strict order, they never share a call,
 * because a queue may take the second entry of a call and fail the first.
 */

import { BATCH_BYTES, BATCH_MESSAGES } from "./limits.js";

/** Maximum number of calls in flight. */
export const MAX_CALLS = 8;

/** Milliseconds that an entry waits for a batch to fill while calls are in flight. */
const LINGER = 20;

/**
 * @template T
 * @typedef {object} Slot
 * @property {string} [key]
 * @property {number} bytes
 * @property {"reserved" | "waiting" | "in_flight" | "abandoned" | "backing_off"} state
 * @property {number} due when the entry leaves although the batch is not full
 * @property {T} [content]
 */

/** Returns the place of an id in a sorted list, or where it would be. @param {number[]} ids @param {number} id */
function placeOf(ids, id) {
  let [from, to] = [0, ids.length];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (ids[middle] < id) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** @param {number[]} ids @param {number} id */
function insert(ids, id) {
  const place = placeOf(ids, id);
  if (ids[place] !== id) ids.splice(place, 0, id);
}

/** @param {number[]} ids @param {number} id */
function remove(ids, id) {
  const place = placeOf(ids, id);
  if (ids[place] === id) ids.splice(place, 1);
}

/** @template T */
export class SendBuffer {
  #strictOrder;
  /** @type {Map<number, Slot<T>>} */
  #slots = new Map();
  /** The entries of each key, in order. @type {Map<string, number[]>} */
  #byKey = new Map();
  /** The waiting entries that are the first of their key, or have no key, in order. @type {number[]} */
  #ready = [];
  #calls = 0;
  #nextId = 0;

  /** @param {boolean} strictOrder */
  constructor(strictOrder) {
    this.#strictOrder = strictOrder;
  }

  /** Adds a reserved entry behind all others, and returns its id. @param {string | undefined} key @param {number} bytes */
  reserve(key, bytes) {
    const id = this.#nextId++;
    this.#slots.set(id, { key, bytes, state: "reserved", due: 0 });
    if (key !== undefined) {
      const ids = this.#byKey.get(key);
      if (ids) ids.push(id);
      else this.#byKey.set(key, [id]);
    }
    return id;
  }

  /**
   * Makes an entry wait that was reserved or backing off.
   * @param {number} id
   * @param {T} content
   * @param {number} now
   * @param {number} left the milliseconds until its deadline: it waits for a batch to fill for half of them at most
   */
  enqueue(id, content, now, left) {
    const slot = this.#slots.get(id);
    if (!slot) return;
    Object.assign(slot, { state: "waiting", due: now + Math.min(LINGER, left / 2), content });
    this.#updateReady(id, slot.key);
  }

  /**
   * Begins a call and returns its entries. Otherwise, returns the time at which the next batch leaves although it is not
   * full, or nothing if that depends on another event.
   * @param {number} now
   * @returns {{ batch: { id: number, content: T }[] } | { at: number } | undefined}
   */
  next(now) {
    if (this.#calls >= MAX_CALLS || !this.#ready.length) return undefined;
    const { ids, isFull } = this.#select();
    const at = Math.min(...ids.map((id) => this.#slot(id).due));
    if (this.#calls > 0 && !isFull && now < at) return { at };
    this.#calls += 1;
    return { batch: ids.map((id) => ({ id, content: this.#start(id) })) };
  }

  /** Returns the entries that may leave together, and whether the batch is full. */
  #select() {
    /** @type {number[]} */
    const ids = [];
    let bytes = 0;
    // Of each key, the first entry; once that is selected, the next.
    const candidates = this.#ready.slice(0, BATCH_MESSAGES);
    for (let id = candidates.shift(); id !== undefined; id = candidates.shift()) {
      const slot = this.#slot(id);
      if (bytes + slot.bytes > BATCH_BYTES && ids.length) return { ids, isFull: true };
      bytes += slot.bytes;
      ids.push(id);
      if (ids.length === BATCH_MESSAGES) return { ids, isFull: true };
      const next = this.#strictOrder ? undefined : this.#after(id, slot.key);
      if (next !== undefined && this.#slot(next).state === "waiting") insert(candidates, next);
    }
    return { ids, isFull: false };
  }

  /** Returns the next entry of a key. @param {number} id @param {string | undefined} key */
  #after(id, key) {
    const ids = key === undefined ? undefined : this.#byKey.get(key);
    return ids?.[placeOf(ids, id + 1)];
  }

  /** @param {number} id */
  #start(id) {
    const slot = this.#slot(id);
    const { content } = slot;
    Object.assign(slot, { state: "in_flight", content: undefined });
    this.#updateReady(id, slot.key);
    return /** @type {T} */ (content);
  }

  /** Ends a call. @param {{ id: number, retry: boolean }[]} results Whether each of its entries is retried. */
  complete(results) {
    this.#calls -= 1;
    for (const { id, retry } of results) {
      const slot = this.#slots.get(id);
      if (retry && slot?.state === "in_flight") slot.state = "backing_off";
      else this.#remove(id);
    }
  }

  /**
   * Removes an entry whose send has ended. An entry in flight is removed when its call completes, so that later entries of
   * its key do not overtake it. Without effect for an entry that has completed.
   * @param {number} id
   */
  cancel(id) {
    const slot = this.#slots.get(id);
    if (slot?.state === "in_flight") slot.state = "abandoned";
    else if (slot?.state !== "abandoned") this.#remove(id);
  }

  /** @param {number} id */
  #remove(id) {
    const slot = this.#slots.get(id);
    if (!slot) return;
    this.#slots.delete(id);
    remove(this.#ready, id);
    const ids = slot.key === undefined ? undefined : this.#byKey.get(slot.key);
    if (ids) remove(ids, id);
    this.#updateReady(id, slot.key);
  }

  /** Updates `ready` after a change of an entry. @param {number} id @param {string | undefined} key */
  #updateReady(id, key) {
    remove(this.#ready, id);
    let first = /** @type {number | undefined} */ (id);
    if (key !== undefined) {
      const ids = this.#byKey.get(key);
      if (ids && !ids.length) this.#byKey.delete(key);
      first = ids?.[0];
    }
    if (first !== undefined && this.#slots.get(first)?.state === "waiting") insert(this.#ready, first);
  }

  /** @param {number} id */
  #slot(id) {
    return /** @type {Slot<T>} */ (this.#slots.get(id));
  }
}

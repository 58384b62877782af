/** The pauses after a failed call. */

/**
 * The pauses of the entries of one call before their next attempts. Equal pauses share a timer, so that their entries are
 * ready at the same time and share a call again.
 */
export class Pauses {
  /** The entries of each pause. @type {Map<number, { ends: Set<() => void>, timer: ReturnType<typeof setTimeout> }>} */
  #pauses = new Map();

  /** @param {number} share the random share of the longest pause, 0 to 1, which is the same for all entries */
  constructor(share) {
    this.share = share;
  }

  /**
   * Calls `end` after a time in milliseconds. Returns a function that gives it up.
   * @param {number} delay
   * @param {() => void} end
   */
  begin(delay, end) {
    const { ends, timer } = this.#pauses.get(delay) ?? this.#start(delay);
    ends.add(end);
    return () => {
      ends.delete(end);
      if (ends.size) return;
      clearTimeout(timer);
      this.#pauses.delete(delay);
    };
  }

  /** @param {number} delay */
  #start(delay) {
    /** @type {Set<() => void>} */
    const ends = new Set();
    const pause = { ends, timer: setTimeout(() => [...ends].forEach((end) => end()), delay) };
    this.#pauses.set(delay, pause);
    return pause;
  }
}

/** A bound on the bytes that are being sent. */

export class Capacity {
  #free;
  #total;
  /** @type {{ bytes: number, resolve: (value: true) => void }[]} */
  #waiting = [];

  /** @param {number} bytes */
  constructor(bytes) {
    this.#free = bytes;
    this.#total = bytes;
  }

  /**
   * Waits for capacity, first come, first served. Returns the bytes to release, or nothing at the deadline. It returns at
   * once if there is capacity, so that concurrent sends share a call.
   * @param {number} wanted
   * @param {import("./deadline.js").Deadline} deadline
   * @returns {number | Promise<number | undefined>}
   */
  acquire(wanted, deadline) {
    const bytes = Math.min(wanted, this.#total);
    if (!this.#waiting.length && bytes <= this.#free) {
      this.#free -= bytes;
      return bytes;
    }
    return this.#wait(bytes, deadline);
  }

  /** @param {number} bytes @param {import("./deadline.js").Deadline} deadline */
  async #wait(bytes, deadline) {
    /** @type {{ bytes: number, resolve: (value: true) => void } | undefined} */
    let waiter;
    const isAcquired = await deadline.wait((resolve) => {
      waiter = { bytes, resolve };
      this.#waiting.push(waiter);
    });
    if (isAcquired) return bytes;
    const place = waiter ? this.#waiting.indexOf(waiter) : -1;
    if (place >= 0) this.#waiting.splice(place, 1);
    // It was served after the end of its wait, and before this line.
    else if (waiter) this.#free += bytes;
    // Those behind it may need less.
    this.#serve();
    return undefined;
  }

  /** @param {number} bytes */
  release(bytes) {
    this.#free += bytes;
    this.#serve();
  }

  #serve() {
    while (this.#waiting.length && this.#waiting[0].bytes <= this.#free) {
      const { bytes, resolve } = /** @type {{ bytes: number, resolve: (value: true) => void }} */ (this.#waiting.shift());
      this.#free -= bytes;
      resolve(true);
    }
  }
}

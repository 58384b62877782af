/** Sockets and requests in virtual time, with latency and faults. */

/** A network between one client and one server. */
export class Network {
  isUp = true;
  /** Called with the server's end of each new socket. */
  accept = (_peer) => {};
  /** @type {Set<any>} */
  #sockets = new Set();
  #cuts = 0;

  constructor(window, random) {
    this.window = window;
    this.random = random;
    const network = this;
    /** The client's end, as a browser has it. */
    this.WebSocket = class {
      readyState = 0;
      #sendsAt = 0;
      #receivesAt = 0;

      constructor() {
        network.#sockets.add(this);
        this.#receivesAt = network.after(this.#receivesAt, () => this.#handshake());
      }
      #handshake() {
        if (this.readyState !== 0) return;
        if (!network.isUp) return this.end(0);
        this.peer = { send: (text) => this.#receive(text), onmessage: (_text) => {}, onclose: () => {} };
        network.accept(this.peer);
        this.#receivesAt = network.after(this.#receivesAt, () => {
          if (this.readyState !== 0) return;
          this.readyState = 1;
          this.onopen({});
        });
      }
      #receive(text) {
        if (this.isLossy) return;
        this.#receivesAt = network.after(this.#receivesAt, () => {
          if (this.readyState === 1 && !this.isLossy) this.onmessage({ data: text });
        });
      }
      send(text) {
        this.#sendsAt = network.after(this.#sendsAt, () => {
          if (this.readyState === 1 && !this.isLossy) this.peer.onmessage(text);
        });
      }
      close() {
        this.#leave(0);
      }
      #leave(notice) {
        this.readyState = 3;
        network.#sockets.delete(this);
        network.window.setTimeout(() => this.peer?.onclose(), notice);
      }
      end(notice) {
        this.#leave(notice);
        this.onclose({ code: 1006 });
      }
    };
  }

  /** Calls back after a latency of 10 to 80 ms, and in the order of the calls of one direction. Returns the time. */
  after(earliest, call) {
    const { time } = this.window;
    const at = Math.max(earliest, Math.ceil(time + 10 + this.random() * 70));
    this.window.setTimeout(call, at - time);
    return at;
  }

  /** An HTTP request, which fails with the network. */
  request(answer) {
    const cuts = this.#cuts;
    return new Promise((resolve, reject) => {
      const fail = () => reject(new Error("network"));
      this.after(0, () => {
        if (!this.isUp) return fail();
        const result = answer();
        this.after(0, () => (cuts === this.#cuts ? resolve(result) : fail()));
      });
    });
  }

  /** Loses all frames of the open sockets from now on. */
  lose() {
    for (const socket of this.#sockets) socket.isLossy = true;
  }

  /** Ends all sockets, and refuses others. */
  cut(notice) {
    this.isUp = false;
    this.#cuts++;
    for (const socket of [...this.#sockets]) socket.end(notice);
  }
}

/** A TCP proxy on loopback with the faults of the virtual network. */

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Proxy {
  isUp = true;
  /** The port of the server behind it. */
  target = 0;
  #pairs = new Set();
  #server = createServer((client) => {
    client.on("error", () => {});
    if (!this.isUp) return client.destroy();
    const upstream = connect(this.target, "127.0.0.1");
    upstream.on("error", () => {});
    const pair = { client, upstream, isLossy: false };
    this.#pairs.add(pair);
    client.on("data", (bytes) => pair.isLossy || upstream.write(bytes));
    upstream.on("data", (bytes) => pair.isLossy || client.write(bytes));
    client.on("close", () => this.#pairs.has(pair) && this.#end(pair, 0));
    upstream.on("close", () => client.destroy());
  });

  async listen() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this.#server.address().port;
  }

  /** Ends both halves of a connection; the server's after some milliseconds. */
  #end(pair, notice) {
    this.#pairs.delete(pair);
    pair.client.destroy();
    if (notice) setTimeout(() => pair.upstream.destroy(), notice);
    else pair.upstream.destroy();
  }

  lose() {
    for (const pair of this.#pairs) pair.isLossy = true;
  }

  cut(notice) {
    this.isUp = false;
    for (const pair of this.#pairs) this.#end(pair, notice);
  }

  close() {
    this.cut(0);
    this.#server.close();
  }
}

/** A device of a user: prints each event as a line of JSON, and follows the commands on its standard input. */

import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { StreamerClient } from "./streamer-client/index.js";

const [url, token] = process.argv.slice(2);
const print = (event, value) => console.log(JSON.stringify({ event, ...value }));

const sockets = new Set();
let isOffline = false;

/** A socket that has no network while the device is offline. */
class Socket extends WebSocket {
  constructor(...values) {
    super(...values);
    sockets.add(this);
    this.on("close", () => sockets.delete(this));
    if (isOffline) this.terminate();
  }
}

const client = new StreamerClient(url, { token: () => token, WebSocket: Socket, mailbox: {}, random: () => 0.5 });
for (const name of ["state", "message", "gap", "caughtUp", "error"]) client.on(name, (value) => print(name, value));

const commands = {
  async report() {
    const job = client.request({ type: "report", seconds: 3 });
    for await (const { progress } of job) print("progress", { progress });
    print("result", { result: await job });
  },
  cut() {
    for (const socket of sockets) socket.terminate();
  },
  offline() {
    isOffline = true;
    commands.cut();
  },
  online: () => void (isOffline = false),
  close: () => client.close(),
};

client.connect();
for await (const line of createInterface(process.stdin)) commands[line]();

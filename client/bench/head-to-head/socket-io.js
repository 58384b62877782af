/**
 * socket.io with connection state recovery: the packages from npm, over loopback, in real time that runs faster.
 *
 * The script's times, pings, reconnect delays and retention are divided by `SPEED`; other times of the packages, such as
 * the timeout of a handshake, keep their defaults. The in-memory adapter keeps sessions and packets for `retention`; the
 * default is 2 min. A producer waits while the server restarts, and sends then.
 */

import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Server } from "socket.io";
import { io } from "socket.io-client";
import { Proxy } from "./proxy.js";
import { newRecord, reload } from "./tally.js";

export const SPEED = 20;
/** Defaults of the packages: a ping each 25 s with 20 s for its answer; attempts after 1 to 5 s. */
const [PING, PONG, LEAST, MOST] = [25_000, 20_000, 1000, 5000].map((ms) => ms / SPEED);

async function serve(retention) {
  const http = createServer();
  const server = new Server(http, {
    pingInterval: PING,
    pingTimeout: PONG,
    transports: ["websocket"],
    connectionStateRecovery: { maxDisconnectionDuration: retention / SPEED },
  });
  // A recovered socket is in its room again.
  server.on("connection", (socket) => socket.recovered || socket.join("user"));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  return { server, port: http.address().port };
}

function follow(port, record) {
  const socket = io(`http://127.0.0.1:${port}`, {
    transports: ["websocket"],
    forceNew: true,
    reconnectionDelay: LEAST,
    reconnectionDelayMax: MOST,
  });
  let isFirst = true;
  socket.on("message", (id) => record.shown.push(id));
  socket.on("connect", () => {
    socket.io.reconnectionDelay(LEAST);
    // A connection that was not recovered says that any message before it may be missing.
    if (!socket.recovered && !isFirst) reload(record);
    isFirst = false;
  });
  return socket;
}

/** @type {(script: ReturnType<typeof import("./script.js").createScript>, retention: number) => Promise<import("./tally.js").Record>} */
export async function playSocketIo(script, retention) {
  const record = newRecord();
  const proxy = new Proxy();
  let server;
  const start = async () => {
    const started = await serve(retention);
    ({ server } = started);
    proxy.target = started.port;
  };
  await start();
  const socket = follow(await proxy.listen(), record);
  await once(socket, "connect");
  const waiting = [];
  const emit = ({ message }) => {
    record.published.push(message);
    server.to("user").emit("message", message.id);
  };
  const kinds = {
    publish: (step) => (server ? emit(step) : waiting.push(step)),
    lose: () => proxy.lose(),
    async cut({ notice, isRestart, isQuick }) {
      // A client that reconnects at once, as with another network. The delay is computed when the socket closes.
      if (isQuick) socket.io.reconnectionDelay(1);
      proxy.cut(notice / SPEED);
      if (!isRestart) return;
      server.close();
      server = undefined;
    },
    async return({ isRestart }) {
      if (isRestart) await start();
      proxy.isUp = true;
      waiting.splice(0).forEach(emit);
    },
  };
  const started = performance.now();
  for (const step of script.steps) {
    await sleep(Math.max(0, started + step.at / SPEED - performance.now()));
    await kinds[step.kind](step);
  }
  await sleep(Math.max(0, started + script.end / SPEED - performance.now()));
  record.isComplete = socket.connected;
  socket.close();
  server.close();
  proxy.close();
  return record;
}

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { StreamerClient } from "../index.js";

/** A server with a stream of messages, which cuts every connection after two live ones. */
async function serve() {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: (offered) => [...offered][0] });
  await once(server, "listening");
  let top = 0;
  const message = (seq) => ({ seq, id: `m${seq}`, payload: `payload ${seq}` });
  server.on("connection", (socket, { headers }) => {
    assert.deepEqual(headers["sec-websocket-protocol"].split(/, */), ["streamer.jwt", "a.b.c"]);
    socket.on("message", (text) => {
      const { type, n, streams, request_id } = JSON.parse(text);
      const send = (frame) => socket.send(JSON.stringify(frame));
      if (type === "streamer.ping") return send({ type: "streamer.pong" });
      if (request_id) return send({ type: "complete", result: top, request_id, id: request_id });
      assert.equal(type, "streamer.sync");
      const { seq = 0 } = streams[0];
      send({
        type: "streamer.page", n, stream: "user", epoch: "e", after: seq, through: top, top, missing: [], expires_in: 7200, now: Date.now(),
        messages: Array.from({ length: top - seq }, (_, at) => message(seq + 1 + at)),
      });
      for (let live = 0; live < 2; live++) send({ type: "streamer.message", stream: "user", epoch: "e", ...message(++top) });
      // One is stored while the client is away.
      top++;
      socket.terminate();
    });
  });
  return { server, url: `ws://127.0.0.1:${server.address().port}` };
}

/** How much faster the client's time runs, so that its backoff does not delay the tests. */
const SPEED = 50;

/** Follows the stream of `serve` over its cuts. */
async function follow(WebSocket) {
  const { server, url } = await serve();
  const client = new StreamerClient(url, {
    token: () => "a.b.c",
    WebSocket,
    mailbox: {},
    window: { setTimeout: (call, ms, ...values) => setTimeout(call, ms / SPEED, ...values), clearTimeout },
    now: () => performance.now() * SPEED,
  });
  const seen = [];
  const enough = new Promise((resolve) => client.on("message", ({ seq }) => seen.push(seq) === 30 && resolve()));
  client.connect();
  await enough;
  assert.deepEqual(seen.slice(0, 30), Array.from({ length: 30 }, (_, at) => at + 1));
  await client.close();
  server.close();
}

test("real sockets are cut and nothing is lost", () => follow(WebSocket));

// Node has a WebSocket of its own from version 22.
test("native sockets are cut and nothing is lost", { skip: !globalThis.WebSocket }, () => follow(globalThis.WebSocket));

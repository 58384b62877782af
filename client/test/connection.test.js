import assert from "node:assert/strict";
import { test } from "node:test";
import { ClosedError, TooLargeError, Unauthorized } from "../index.js";
import { live, outcome, page, rig, settle } from "./harness.js";

const MINUTE = 60_000;

test("token travels as subprotocol or query", async () => {
  const first = rig({ token: async () => "a.b.c\n" });
  await first.start();
  assert.deepEqual([first.sockets[0].url, first.sockets[0].protocols], ["wss://example.com/live", ["streamer.jwt", "a.b.c"]]);
  const second = rig({ auth: "query", token: () => "a b" });
  await second.start();
  assert.deepEqual([second.sockets[0].url, second.sockets[0].protocols], ["wss://example.com/live?Authorization=a%20b", undefined]);
});

test("states follow a connection's life", async () => {
  const { client, states, sockets, window, start } = rig({ mailbox: {} });
  assert.equal(client.state, "idle");
  const connected = client.connect();
  assert.equal(await outcome(connected), "pending");
  await start();
  assert.deepEqual(await outcome(connected), { value: undefined });
  sockets[0].drop();
  await window.advance(500);
  assert.deepEqual(states(), ["connecting", "connected", "caughtUp", "waiting", "connecting"]);
  await client.close();
  assert.equal(client.state, "closed");
});

test("every close code leads to a new connection", async () => {
  for (const code of [1000, 1001, 1003, 1005, 1006, 1008, 1009, 1011, 1012, 1013, 1015, 4000]) {
    const { start, next } = rig();
    (await start()).drop(code);
    assert.ok(await next(), `${code}`);
  }
});

test("nothing is left after close", async () => {
  for (const moment of ["idle", "token", "opening", "open", "waiting"]) {
    const token = moment === "token" ? () => new Promise(() => {}) : () => "t";
    const { client, window, sockets } = rig({ mailbox: {}, token });
    if (moment !== "idle") client.connect();
    await settle();
    if (moment === "open" || moment === "waiting") sockets[0].open();
    if (moment === "waiting") sockets[0].drop();
    await client.close();
    await window.advance(10 * MINUTE);
    assert.equal(window.timers.size, 0, moment);
    assert.equal(window.listeners, 0, moment);
    assert.ok(sockets.length <= 1, moment);
    if (moment === "open" || moment === "opening") assert.equal(sockets[0].closedWith, 1000);
    assert.ok((await outcome(client.connect())).error instanceof ClosedError);
    assert.equal(window.listeners, 0, moment);
    await assert.rejects(client.send({}), ClosedError);
  }
});

test("backoff grows up to a minute", async () => {
  for (const [random, share] of [[0.999, 0.5005], [0, 1]]) {
    const { client, events, next } = rig({ random: () => random });
    client.connect();
    for (let tries = 0; tries < 20; tries++) (await next()).drop();
    const delays = events.filter(([, event]) => event.state === "waiting").map(([, event]) => event.retryIn);
    // The first delay may be any part of a second, and later ones are at least half of the longest.
    assert.equal(delays.shift(), 1000 * random);
    const longest = delays.map((delay) => Math.round(delay / share));
    assert.deepEqual(longest.slice(0, 4), [1300, 1690, 2197, 2856]);
    assert.deepEqual(longest.slice(14, 17), [51_186, 60_000, 60_000]);
    assert.equal(client.state, "waiting");
  }
});

test("server down for an hour gets few tries", async () => {
  // The server refuses handshakes, or ends each connection at once.
  for (const opens of [false, true]) {
    for (const [random, least, most] of [[0, 65, 80], [0.5, 85, 100], [0.999, 120, 140]]) {
      const { client, window, sockets } = rig({ mailbox: {}, random: () => random });
      client.connect();
      for (let second = 0; second < 3600; second++) {
        await window.advance(1000);
        for (const socket of sockets.filter(({ readyState }) => readyState === 0)) {
          if (opens) socket.open();
          socket.drop(1006);
        }
      }
      assert.ok(sockets.length >= least && sockets.length <= most, `${sockets.length} tries`);
      await client.close();
      assert.equal(window.timers.size, 0);
    }
  }
});

test("stable connection resets the backoff", async () => {
  const { client, window, events, next } = rig();
  client.connect();
  const delays = () => events.filter(([, event]) => event.retryIn).map(([, event]) => event.retryIn);
  for (const open of [0, 9_999, 10_000]) {
    const socket = await next();
    socket.open();
    await window.advance(open);
    socket.drop();
  }
  assert.deepEqual(delays(), [500, 975, 500]);
});

test("three refusals ask for a fresh token", async () => {
  const refused = [];
  const { client, next } = rig({ token: (reason) => refused.push(reason.refused) && "t" });
  client.connect();
  for (let tries = 0; tries < 8; tries++) (await next()).drop();
  await next();
  assert.deepEqual(refused.map(Number), [0, 0, 0, 1, 0, 0, 1, 0, 0]);
});

test("opened socket forgets refusals", async () => {
  const refused = [];
  const { client, next } = rig({ token: (reason) => refused.push(reason.refused) && "t" });
  client.connect();
  for (const opens of [false, false, true, false, false]) {
    const socket = await next();
    if (opens) socket.open();
    socket.drop();
  }
  await next();
  assert.deepEqual(refused, Array(6).fill(false));
});

test("unauthorized ends the client", async () => {
  const error = new Unauthorized("signed out");
  const { client, window, events, sockets } = rig({ token: () => Promise.reject(error) });
  assert.deepEqual(await outcome(client.connect()), { error });
  assert.deepEqual(events.at(-1), ["state", { state: "failed", reason: "unauthorized", retryIn: undefined }]);
  await window.advance(10 * MINUTE);
  assert.deepEqual([sockets.length, window.timers.size, window.listeners], [0, 0, 0]);
  assert.deepEqual(await outcome(client.request({ type: "a" })), { error });
});

test("failing token callback is retried", async () => {
  const failures = [() => Promise.reject(new Error("offline")), () => { throw new Error("bug"); }, () => undefined];
  const { client, events, sockets, next } = rig({ token: () => (failures.shift() ?? (() => "t"))() });
  client.connect();
  await next();
  assert.equal(events.filter(([name, event]) => name === "error" && event.source === "token").length, 3);
  assert.equal(sockets.length, 1);
});

test("token callback that never returns is abandoned", async () => {
  const resolves = [];
  const { client, window, sockets } = rig({ token: () => new Promise((resolve) => resolves.push(resolve)) });
  client.connect();
  await window.advance(30_000);
  assert.equal(client.state, "waiting");
  await window.advance(1000);
  assert.equal(resolves.length, 2);
  resolves[0]("late");
  await settle();
  assert.equal(sockets.length, 0);
  resolves[1]("t");
  await settle();
  assert.deepEqual(sockets[0].protocols, ["streamer.jwt", "t"]);
});

test("handshake that hangs is abandoned", async () => {
  const { client, window, sockets } = rig();
  client.connect();
  await window.advance(31_000);
  assert.equal(sockets[0].closedWith, 1000);
  assert.equal(sockets.length, 2);
  sockets[0].open();
  assert.equal(client.state, "connecting");
});

test("constructor of a socket may throw", async () => {
  const { client, window, events } = rig({ WebSocket: class { constructor() { throw new SyntaxError("bad URL"); } } });
  client.connect();
  await window.advance(100);
  assert.equal(client.state, "waiting");
  assert.equal(events.find(([name]) => name === "error")[1].error.message, "bad URL");
});

test("other user's token ends the client", async () => {
  const { jwt } = await import("./harness.js");
  const tokens = [jwt("anna", "acme", { exp: 1 }), jwt("anna", "acme", { exp: 2 }), jwt("ben")];
  const { client, window, sockets, start } = rig({ token: () => tokens.shift() });
  await start();
  sockets[0].drop();
  await window.advance(1000);
  assert.equal(sockets.length, 2);
  sockets[1].drop();
  await window.advance(2000);
  assert.deepEqual([client.state, sockets.length], ["failed", 2]);
});

test("idle connection sends a sync", async () => {
  for (const [random, minutes] of [[0, 7.2], [0.5, 8], [0.999, 8.79]]) {
    const { window, start } = rig({ mailbox: {}, random: () => random });
    const socket = await start();
    socket.take();
    await window.advance(minutes * MINUTE - 1);
    assert.deepEqual(socket.take(), []);
    await window.advance(1000);
    assert.deepEqual(socket.take().map(({ type, n, hello }) => [type, n, hello]), [["streamer.sync", 2, false]]);
  }
});

test("busy connection sends no ping", async () => {
  const { client, window, start } = rig({ mailbox: {} });
  client.on("message", () => {});
  const socket = await start();
  socket.take();
  for (let seq = 1; seq <= 20; seq++) {
    await window.advance(4 * MINUTE);
    socket.frame(live(seq));
  }
  assert.deepEqual(socket.take(), []);
});

test("idle connection without mailbox sends a ping", async () => {
  const { client, window, start, sockets } = rig();
  const socket = await start();
  await window.advance(8 * MINUTE);
  assert.deepEqual(socket.take(), [{ type: "streamer.ping", action: "streamer.ping" }]);
  // Without the route there is no pong, and the connection stays.
  await window.advance(20 * MINUTE);
  assert.deepEqual([client.state, sockets.length], ["connected", 1]);
});

test("unanswered ping reconnects within 4 s", async () => {
  for (const signal of ["visibilitychange", "pageshow", "online", "sleep"]) {
    const { client, window, start, sockets } = rig({ mailbox: {} });
    const socket = await start();
    socket.take();
    if (signal === "sleep") await window.sleep(3 * MINUTE);
    else (signal === "visibilitychange" ? window.document : window).dispatchEvent(new Event(signal));
    assert.deepEqual(socket.take().map(({ type }) => type), ["streamer.ping"], signal);
    await window.advance(3999);
    assert.equal(sockets.length, 1, signal);
    await window.advance(1);
    assert.deepEqual([sockets.length, socket.closedWith, client.state], [2, 1000, "connecting"], signal);
  }
});

test("pong keeps the connection", async () => {
  const { client, window, start, sockets } = rig({ mailbox: {} });
  const socket = await start();
  window.dispatchEvent(new Event("online"));
  window.dispatchEvent(new Event("pageshow"));
  assert.equal(socket.take().filter(({ type }) => type === "streamer.ping").length, 1);
  socket.frame({ type: "streamer.pong" });
  await window.advance(MINUTE);
  assert.deepEqual([client.state, sockets.length], ["caughtUp", 1]);
});

test("hidden page is not checked", async () => {
  const { window, start } = rig({ mailbox: {} });
  const socket = await start();
  socket.take();
  window.document.hidden = true;
  window.document.dispatchEvent(new Event("visibilitychange"));
  await window.sleep(3 * MINUTE);
  assert.deepEqual(socket.take(), []);
});

test("sleep without the ping route reconnects", async () => {
  const { client, window, start, sockets } = rig();
  await start();
  window.document.dispatchEvent(new Event("visibilitychange"));
  await window.advance(10_000);
  assert.equal(sockets.length, 1);
  await window.sleep(MINUTE);
  assert.deepEqual([sockets.length, client.state], [2, "connecting"]);
});

test("network's return is used within 1 s", async () => {
  const { client, window, sockets, next } = rig({ random: () => 0.9 });
  client.connect();
  for (let tries = 0; tries < 6; tries++) (await next()).drop();
  window.dispatchEvent(new Event("online"));
  await window.advance(899);
  assert.equal(sockets.length, 6);
  await window.advance(1);
  assert.equal(sockets.length, 7);
});

/** Answers syncs with an empty page. */
const serve = (socket, expires_in = 1e6) => {
  socket.serve = ({ type, n, streams }) => {
    const { seq } = streams?.[0] ?? {};
    if (type === "streamer.sync") socket.frame(page(n, seq, seq, seq, { expires_in }));
  };
};

test("rotation opens before it closes", async () => {
  for (const [random, minutes] of [[0, 100], [0.999, 114.985]]) {
    const { client, window, sockets, start, states } = rig({ mailbox: {}, random: () => random });
    const seen = [];
    client.on("message", ({ seq }) => seen.push(seq));
    const old = await start();
    old.frame(page(1, 0, 0, 0, { expires_in: 1e6 }));
    serve(old);
    await window.advance(minutes * MINUTE - 1000);
    assert.equal(sockets.length, 1);
    await window.advance(1000);
    assert.equal(sockets.length, 2);
    old.frame(live(1));
    sockets[1].open();
    old.frame(live(2));
    sockets[1].frame(live(2));
    sockets[1].frame(live(3));
    old.frame(live(4));
    await settle();
    assert.equal(seen.length, 4);
    assert.equal(old.closedWith, undefined);
    const [{ n, hello, streams }] = sockets[1].take();
    assert.deepEqual([hello, streams[0].seq], [true, 1]);
    sockets[1].frame(page(n, 1, 4));
    assert.equal(old.closedWith, 1000);
    await settle();
    assert.deepEqual(seen, [1, 2, 3, 4]);
    assert.deepEqual(states(), ["connecting", "connected", "caughtUp"]);
  }
});

test("rotation follows expires_in", async () => {
  for (const [random, minutes] of [[0, 10], [0.5, 17.5], [0.999, 24.985]]) {
    const { window, sockets, start } = rig({ mailbox: {}, random: () => random });
    const socket = await start();
    serve(socket);
    socket.frame(page(1, 0, 0, 0, { expires_in: 30 * 60 }));
    await window.advance(minutes * MINUTE - 1000);
    assert.equal(sockets.length, 1);
    await window.advance(1000);
    assert.equal(sockets.length, 2);
  }
});

test("wrong expires_in cannot cause a loop", async () => {
  for (const expires_in of [0, -1e9, "soon", null]) {
    const { window, sockets, start } = rig({ mailbox: {} });
    await start();
    sockets[0].frame(page(1, 0, 0, 0, { expires_in }));
    for (let second = 0; second < 300; second++) {
      await window.advance(1000);
      const socket = sockets.at(-1);
      if (socket.readyState === 0) socket.open();
      for (const { n } of socket.take()) socket.frame(page(n, 0, 0, 0, { expires_in }));
    }
    assert.ok(sockets.length <= 6, `${sockets.length} sockets for ${expires_in}`);
  }
});

test("failed rotation keeps the old socket", async () => {
  const { client, window, sockets, start, states } = rig({ mailbox: {} });
  const seen = [];
  client.on("message", ({ seq }) => seen.push(seq));
  const old = await start();
  old.frame(page(1, 0, 0, 0, { expires_in: 1 }));
  await window.advance(MINUTE);
  sockets[1].drop();
  old.frame(live(1));
  await window.advance(1000);
  sockets[2].open();
  sockets[2].drop();
  old.frame(live(2));
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(old.take().at(-1).hello, true);
  assert.deepEqual([client.state, old.closedWith], ["caughtUp", undefined]);
  assert.deepEqual(states(), ["connecting", "connected", "caughtUp"]);
  old.drop();
  assert.equal(client.state, "waiting");
});

test("old socket's end during a rotation is no loss", async () => {
  const { client, window, sockets, start } = rig({ mailbox: {} });
  const old = await start();
  old.frame(page(1, 0, 0, 0, { expires_in: 1 }));
  await window.advance(MINUTE);
  old.drop();
  assert.equal(client.state, "connecting");
  sockets[1].open();
  sockets[1].frame(page(sockets[1].take()[0].n, 0, 0));
  assert.equal(client.state, "caughtUp");
});

test("rotation without mailbox ends at the open", async () => {
  const { window, sockets, start } = rig();
  const old = await start();
  await window.advance(107.5 * MINUTE);
  assert.equal(sockets.length, 2);
  sockets[1].open();
  assert.equal(old.closedWith, 1000);
});

test("clock set back delays nothing for long", async () => {
  const { client, window, sockets, start } = rig({ mailbox: {} });
  await start();
  sockets[0].drop();
  window.time -= 3_600_000;
  for (const timer of window.timers.values()) timer.at -= 3_600_000;
  await window.advance(2000);
  assert.equal(sockets.length, 2);
  await client.close();
});

test("clock set to 2300 does no harm", async () => {
  const { client, window, sockets, start } = rig({ mailbox: {} });
  await start();
  window.time = Date.UTC(2300);
  await window.advance(0);
  const answer = (socket) => {
    if (socket.readyState === 0) socket.open();
    for (const { type, n } of socket.take()) socket.frame(type === "streamer.ping" ? { type: "streamer.pong" } : page(n, 0, 0));
  };
  for (let second = 0; second < 60; second++) {
    sockets.slice(-2).filter(({ readyState }) => readyState < 2).forEach(answer);
    await window.advance(1000);
  }
  assert.ok(sockets.length <= 2);
  assert.equal(client.state, "caughtUp");
});

test("frame over 32 KiB is refused", async () => {
  const { client, start } = rig();
  const socket = await start();
  const of = (bytes, character = "x") => ({ a: character.repeat((bytes - 8) / Buffer.byteLength(character)) });
  await client.send(of(32_768));
  await assert.rejects(client.send(of(32_769)), TooLargeError);
  await assert.rejects(client.send(of(32_772, "é")), TooLargeError);
  assert.ok((await outcome(client.request(of(32_760)))).error instanceof TooLargeError);
  assert.equal(socket.sent.length, 1);
});

test("send rejects while no connection is open", async () => {
  const { client, start, sockets } = rig();
  await assert.rejects(client.send({}), ClosedError);
  await start();
  await client.send({ type: "typing" });
  assert.deepEqual(sockets[0].sent, [{ type: "typing" }]);
  sockets[0].drop();
  await assert.rejects(client.send({}), ClosedError);
});

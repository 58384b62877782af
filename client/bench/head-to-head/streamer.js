/** Streamer's client against a model of the mailbox and its handler. */

import { StreamerClient } from "../../index.js";
import { storage } from "../../test/harness.js";
import { reload } from "./tally.js";

/** Messages of a page. */
const PAGE = 5;

/** The rules of `mailbox-handler` and of the worker: register before the read, number when stored, cover each number. */
function serve({ network, store, isKept }) {
  const registered = new Set();

  const page = ({ n, streams: [{ seq }] }) => {
    const oldest = store.findIndex(isKept);
    const after = seq ?? (oldest < 0 ? store.length : oldest);
    const frame = { type: "streamer.page", n, stream: "user", epoch: "e", after, through: after, top: store.length, messages: [], missing: [], expires_in: 7200, now: 0 };
    while (frame.through < frame.top && frame.messages.length < PAGE) {
      const message = store[frame.through++];
      const seq = frame.through;
      if (isKept(message)) frame.messages.push({ seq, id: message.id, payload: message });
      else if (frame.missing.at(-1)?.to === seq - 1) frame.missing.at(-1).to = seq;
      else frame.missing.push({ from: seq, to: seq, reason: "expired" });
    }
    return frame;
  };

  network.accept = (peer) => {
    const send = (frame) => peer.send(JSON.stringify(frame));
    peer.onmessage = (text) => {
      const frame = JSON.parse(text);
      if (frame.type === "streamer.ping") return send({ type: "streamer.pong" });
      if (frame.hello) registered.add(peer);
      send(page(frame));
    };
    peer.onclose = () => registered.delete(peer);
  };
  return (message) => {
    const frame = { type: "streamer.message", stream: "user", epoch: "e", seq: store.length, id: message.id, payload: message };
    for (const peer of registered) peer.send(JSON.stringify(frame));
  };
}

export function streamer({ window, network, random, store, isKept, record }) {
  const push = serve({ network, store, isKept });
  const client = new StreamerClient("wss://example.com/live", {
    token: () => "token",
    window,
    WebSocket: network.WebSocket,
    now: () => window.time,
    random,
    mailbox: { storage: storage() },
  });
  client.on("message", ({ data }) => void record.shown.push(data.id));
  client.on("gap", ({ from, to, count }) => {
    if (count) for (const { id } of store.slice(from - 1, to)) record.reported.add(id);
    else reload(record);
  });
  client.connect();
  return { push, isComplete: () => client.state === "caughtUp", close: () => client.close() };
}

/**
 * When clients try to reconnect. A schedule creates a client, which returns the delay in milliseconds before each
 * attempt; the time of its last failure is passed in.
 *
 * Streamer's delays come from its own core. Those of other clients are their defaults, read from the packages.
 */

import { createCore } from "../../core.js";
import { MINUTE, SECOND, STABLE } from "../../limits.js";

/** Connects a core, lets the connection become stable, and then has each attempt fail. */
function streamer(random) {
  const core = createCore("oldest");
  let socket = 0;
  let isLost = false;
  const step = (at, ...event) => {
    for (const [effect, id] of core.step(at, random, ...event)) if (effect === "open") socket = id;
  };
  step(0, "connect");
  step(0, "opened", socket);
  return (now) => {
    const at = now + STABLE + SECOND;
    if (isLost) step(core.wakeAt(), "woken");
    isLost = true;
    step(at, "closed", socket);
    return core.wakeAt() - at;
  };
}

/** A list of delays, of which the last one repeats. */
const list = (...delays) => () => {
  let attempts = 0;
  return () => delays[Math.min(attempts++, delays.length - 1)];
};

/** The delays of reconnecting-websocket and its successor partysocket, which have no jitter between attempts. */
const growing = (least) => (random) => {
  const min = least(random);
  let retries = 0;
  return () => Math.min(10_000, min * 1.3 ** retries++);
};

/** Any time from 0 to a longest delay, which grows by a factor from Streamer's first one to its last one. */
const fullJitter = (factor) => (random) => {
  let attempts = 0;
  return () => random() * Math.min(MINUTE, SECOND * factor ** attempts++);
};

export const SCHEDULES = {
  "streamer-client": streamer,
  "factor 2, full jitter": fullJitter(2),
  "factor 1.3, full jitter": fullJitter(1.3),
  // centrifuge 5.8.0, build/index.js: `backoff` with minReconnectDelay 500 and maxReconnectDelay 20000.
  "centrifuge": (random) => {
    let attempts = 0;
    return () => {
      const most = Math.min(20_000, 500 * 2 ** Math.min(31, attempts++));
      return Math.min(20_000, 500 + Math.floor(random() * (most + 1)));
    };
  },
  // @hotsock/hotsock-js 1.4.0, src/hotsock.js: `reconnectWithBackoff`, whose first attempt is immediate.
  "hotsock-js": (random) => {
    let attempts = 0;
    let delay = 1000;
    return () => {
      if (attempts++ < 2) return attempts === 1 ? 0 : delay;
      return (delay = Math.min(20_000, delay * 1.5 + random() * 1000));
    };
  },
  // partysocket 1.3.0, dist/ws.js: minReconnectionDelay 3000, reconnectionDelayGrowFactor 1.3, maxReconnectionDelay 10000.
  "partysocket": growing(() => 3000),
  // phoenix 1.8.16, assets/js/phoenix/socket.js: `reconnectAfterMs`.
  "phoenix": list(10, 50, 100, 150, 200, 250, 500, 1000, 2000, 5000),
  // reconnecting-websocket 4.4.0, dist/reconnecting-websocket-mjs.js: minReconnectionDelay is random once for each page.
  "reconnecting-websocket": growing((random) => 1000 + random() * 4000),
  // socket.io-client 4.8.4, build/esm/manager.js and contrib/backo2.js: 1000 to 5000, factor 2, randomizationFactor 0.5.
  "socket.io-client": (random) => {
    let attempts = 0;
    return () => {
      const base = 1000 * 2 ** attempts++;
      const number = random();
      const deviation = Math.floor(number * 0.5 * base);
      return Math.min(5000, Math.floor(number * 10) & 1 ? base + deviation : base - deviation);
    };
  },
  // @supabase/realtime-js 2.119.1, src/RealtimeClient.ts: RECONNECT_INTERVALS and DEFAULT_RECONNECT_FALLBACK.
  "supabase realtime": list(1000, 2000, 5000, 10_000),
};

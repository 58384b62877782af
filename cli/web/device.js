/** A device of the user: a client, its network and the log of its frames. */

import { StreamerClient } from "./streamer-client/index.js";
import { createFrameLog } from "./frames.js";
import { createNetwork } from "./network.js";

/**
 * Creates a device and connects it.
 * @param {string} url
 * @param {() => Promise<string>} token
 * @param {object} view shows the device
 * @param {(event: { state: string }) => void} view.state
 * @param {(message: import("./streamer-client/types.js").Message) => void} view.message
 * @param {(gap: import("./streamer-client/types.js").Gap) => void} view.gap
 * @param {(report: { id: string, progress?: number, result?: any, error?: string }) => void} view.report gets only the
 *   id when a report starts
 * @param {(entry: import("./frames.js").Entry, isNew: boolean) => void} view.frame
 */
export const createDevice = (url, token, view) => {
  const log = createFrameLog(view.frame, () => client.position);
  const network = createNetwork(log);
  const client = new StreamerClient(url, {
    token: () => {
      if (!network.isOnline()) throw new Error("the device is offline");
      return token();
    },
    mailbox: {},
    WebSocket: network.WebSocket,
    window: network.window,
  });

  /** Shows a request until it ends. */
  const follow = async (job) => {
    const { id } = job;
    view.report({ id });
    try {
      for await (const answer of job) {
        log.progress(answer);
        view.report({ id, progress: answer.progress });
      }
      const result = await job;
      log.ended(id);
      view.report({ id, progress: 100, result: result ?? null });
    } catch (error) {
      log.ended(id);
      view.report({ id, error: error.message });
    }
  };

  client.on("state", view.state);
  client.on("message", (message) => {
    const { data } = message;
    log.show(message.id);
    const isOpen = data?.request_id && ["acknowledgment", "progress"].includes(data.type);
    if (!isOpen) return view.message(message);
    // Another device of the user has sent the request. From now on, this one follows it, too.
    follow(client.resume(data.request_id));
    if (data.type === "progress") log.progress(data);
  });
  client.on("gap", (gap) => {
    log.gap(gap);
    view.gap(gap);
  });
  client.on("error", ({ source, error }) => log.note(`${source}: ${error?.message ?? error}`));
  // The event `state` reports the outcome.
  client.connect().catch(() => {});

  return {
    get position() {
      return client.position;
    },
    /** Starts a report that takes this time. */
    startReport: (seconds) => void follow(client.request({ type: "report", seconds, keep: true })),
    isOnline: network.isOnline,
    goOffline() {
      network.goOffline();
      log.note("Went offline");
    },
    comeBack() {
      log.note("Came back");
      network.comeBack();
    },
    close() {
      client.close();
      network.end();
    },
  };
};

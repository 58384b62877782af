/** The panel of a device. */

import { createDevice } from "./device.js";
import { describe } from "./frames.js";

/** The banner for a person in each state. A short state doesn't flicker. */
const BANNERS = {
  connecting: { text: "Connecting …", delay: 1000 },
  connected: { text: "Loading what you missed …", delay: 1000 },
  waiting: { text: "Connection lost. Reconnecting …", delay: 0 },
  failed: { text: "Please sign in again.", delay: 0 },
};

const MAX_MESSAGES = 100;
const MAX_FRAMES = 200;
const MAX_REPORTS = 3;

const ARROWS = { in: "↓", out: "↑", event: "•" };
const DIRECTIONS = { in: "received", out: "sent", event: "event" };

/** Creates an element. */
const element = (name, className, text = "") =>
  Object.assign(document.createElement(name), { className, textContent: text });

const prepend = (list, item, max) => {
  list.prepend(item);
  if (list.children.length > max) list.lastElementChild.remove();
};

const time = (at) => at.toTimeString().slice(0, 8) + "." + String(at.getMilliseconds()).padStart(3, "0");

const showBanner = (banner) => {
  let timer;
  return (state) => {
    clearTimeout(timer);
    const { text, delay } = BANNERS[state] ?? { text: "", delay: 0 };
    const show = () => (banner.textContent = text);
    if (delay) timer = setTimeout(show, delay);
    else show();
  };
};

/** Returns the text for a report with this result. */
const complete = (result) => {
  const rows = result?.rows?.toLocaleString("en");
  return rows === undefined ? "Complete" : `Complete: ${rows} rows`;
};

/** Shows the reports of a device, the newest one first. */
const showReports = (list, name) => {
  const rows = new Map();
  let started = 0;

  const create = (id) => {
    const row = element("div", "progress");
    const label = element("label", "", `Report ${++started}`);
    const bar = element("progress");
    const text = element("output", "", "Waiting for the router …");
    bar.id = `${name}-${id}`.replaceAll(" ", "-");
    Object.assign(bar, { max: 100, value: 0 });
    label.htmlFor = bar.id;
    row.append(label, text, bar);
    prepend(list, row, MAX_REPORTS);
    rows.set(id, { row, bar, text });
    if (rows.size > MAX_REPORTS) rows.delete(rows.keys().next().value);
    return rows.get(id);
  };

  return ({ id, progress, result, error }) => {
    const [isDone, isFailed] = [result !== undefined, error !== undefined];
    const isStart = progress === undefined && !isDone && !isFailed;
    // A report without a row has made way for newer ones.
    const shown = rows.get(id) ?? (isStart ? create(id) : undefined);
    if (!shown) return;
    const { row, bar, text } = shown;
    if (progress !== undefined) bar.value = progress;
    if (isFailed) text.textContent = `Failed: ${error}`;
    else if (isDone) text.textContent = complete(result);
    else if (progress !== undefined) text.textContent = `${progress} %`;
    row.classList.toggle("done", isDone);
    row.classList.toggle("failed", isFailed);
  };
};

const messageRow = ({ seq, replayed, data }) => {
  const row = element("li");
  row.append(element("span", "seq", seq ? `#${seq}` : "live"), element("span", "text", describe(data)));
  if (replayed) row.append(element("span", "tag", "from the mailbox"));
  return row;
};

/** Shows the frames of a device, the newest one first. */
const showFrames = (list) => {
  const badges = new WeakMap();

  return (entry, isNew) => {
    if (isNew) {
      const row = element("li", entry.direction);
      const arrow = element("span", "arrow", ARROWS[entry.direction]);
      arrow.setAttribute("aria-label", DIRECTIONS[entry.direction]);
      arrow.setAttribute("role", "img");
      const badge = element("span");
      row.append(element("time", "", time(entry.at)), arrow, element("span", "title", entry.title), badge);
      if (entry.raw) row.append(element("code", "", entry.raw));
      badges.set(entry, badge);
      prepend(list, row, MAX_FRAMES);
    }
    const badge = badges.get(entry);
    badge.className = entry.verdict ? `badge ${entry.tone}` : "";
    badge.textContent = entry.verdict;
  };
};

/**
 * Creates the panel of a new device, and its device.
 * @param {string} name
 * @param {string} url
 * @param {() => Promise<string>} token
 * @param {{ send(): Promise<void>, removed(): void }} calls
 */
export const createPanel = (name, url, token, calls) => {
  const panel = document.getElementById("panel").content.firstElementChild.cloneNode(true);
  const find = (selector) => panel.querySelector(selector);
  const [messages, empty, offline, offlineNotice] = [".messages ol", ".empty", ".offline", ".offline-notice"].map(find);
  const headingId = name.toLowerCase().replaceAll(" ", "-");
  Object.assign(find("h2"), { textContent: name, id: headingId });
  panel.setAttribute("aria-labelledby", headingId);
  messages.setAttribute("aria-label", `Messages of ${name}`);
  find(".frames ol").setAttribute("aria-label", `Frames of ${name}, newest first`);
  const banner = showBanner(find(".banner"));
  const report = showReports(find(".reports"), headingId);
  const frame = showFrames(find(".frames ol"));

  const addMessage = (row) => {
    empty.hidden = true;
    prepend(messages, row, MAX_MESSAGES);
  };

  const showPosition = () => {
    const { seq } = device.position ?? {};
    find(".position").textContent = seq === undefined ? "" : `#${seq}`;
  };

  const device = createDevice(url, token, {
    state({ state, reason }) {
      panel.dataset.state = state;
      find(".state-name").textContent = state;
      // Without a mailbox, nothing more is loaded.
      banner(reason === "unsupported" ? undefined : state);
      setTimeout(showPosition);
    },
    message: (message) => void addMessage(messageRow(message)),
    gap: ({ reason }) => void addMessage(element("li", "gap", `Some messages are missing: ${reason}`)),
    report,
    frame(entry, isNew) {
      frame(entry, isNew);
      // The position moves after the handler has handled a message.
      if (!isNew) showPosition();
    },
  });

  const showNetwork = () => {
    const isOnline = device.isOnline();
    panel.classList.toggle("is-offline", !isOnline);
    offline.textContent = isOnline ? "Go offline" : "Come back";
    offlineNotice.textContent = isOnline
      ? ""
      : "The device is offline: no frame gets through. The client notices when it sends something, or is back.";
  };

  find(".report").addEventListener("click", ({ currentTarget }) =>
    device.startReport(Number(currentTarget.dataset.seconds)),
  );
  find(".send").addEventListener("click", calls.send);
  offline.addEventListener("click", () => {
    if (device.isOnline()) device.goOffline();
    else device.comeBack();
    showNetwork();
  });
  find(".full").addEventListener("change", ({ target }) => find(".frames").classList.toggle("is-full", target.checked));
  const close = () => {
    device.close();
    panel.remove();
  };
  find(".remove").addEventListener("click", () => {
    close();
    calls.removed();
  });
  return { panel, close };
};

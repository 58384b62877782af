/** The page: signs in, and adds devices. */

import { createPanel } from "./panel.js";
import { fetchToken, killWorker, sendMessage, websocketUrl } from "./stack.js";

/** Devices at a time. */
const MAX_DEVICES = 4;

const find = (id) => document.getElementById(id);
const [form, session, notice, add, second] = ["sign-in", "session", "notice", "add", "second"].map(find);

/** The panels, and the user of their clients. */
let panels = new Set();
let user;
let added = 0;
let sent = 0;

/** Runs an action, and shows its result or its error. */
const act = async (action) => {
  try {
    notice.textContent = (await action()) ?? "";
    notice.classList.remove("is-error");
  } catch (error) {
    notice.textContent = error.message;
    notice.classList.add("is-error");
  }
};

const showCount = () => {
  add.disabled = panels.size >= MAX_DEVICES;
  second.hidden = panels.size !== 1;
};

const addDevice = async () => {
  const of = user;
  const url = await websocketUrl();
  // Meanwhile, the user has signed out or added other devices.
  if (of !== user || panels.size >= MAX_DEVICES) return;
  const entry = createPanel(`Device ${++added}`, url, () => fetchToken(of), {
    send: () => act(async () => void (await sendMessage(of, `Message ${++sent}`))),
    removed() {
      panels.delete(entry);
      showCount();
      add.focus();
    },
  });
  panels.add(entry);
  second.before(entry.panel);
  showCount();
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  act(async () => {
    const { tenant, user: name } = Object.fromEntries(new FormData(form));
    await fetchToken({ tenant, user: name });
    user = { tenant, user: name };
    added = 0;
    find("signed-in-user").textContent = `${name}, ${tenant}`;
    form.hidden = true;
    session.hidden = false;
    await addDevice();
    document.querySelector(".report")?.focus();
  });
});

for (const button of [add, second]) button.addEventListener("click", () => act(addDevice));

find("kill").addEventListener("click", () =>
  act(async () => {
    const killed = await killWorker();
    if (!killed) return "No worker is running. The next message starts one: try again while a report is under way.";
    const processes = killed === 1 ? "process" : "processes";
    return `Killed ${killed} worker ${processes}. Messages in their hands come back after 3 minutes, others at once.`;
  }),
);

find("sign-out").addEventListener("click", () => {
  for (const { close } of panels) close();
  panels = new Set();
  user = undefined;
  notice.textContent = "";
  form.hidden = false;
  session.hidden = true;
  showCount();
  find("tenant").focus();
});

/** Starts the stack, the page and a browser for the tests, and ends them. */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const workspace = fileURLToPath(new URL("../../", import.meta.url));
const program = process.env.STREAMER ?? join(workspace, "target/debug/streamer");

/** Time that anything may take on a busy machine, in milliseconds. */
export const DEADLINE = 60_000;

const POLL_INTERVAL = 100;

/** Time after which a process that does not end by itself is killed, in milliseconds. */
const END_TIME = 15_000;

/**
 * Runs a command of `streamer` until it has printed an object. Returns that object, and the function that ends the
 * command and returns its exit code.
 */
export const start = async (state, ...command) => {
  const child = spawn(program, [...command, "--json"], {
    env: { ...process.env, STREAMER_STATE: state },
    stdio: ["ignore", "pipe", "pipe"],
  });
  // Without a wait: the process ends with this one.
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let errors = "";
  child.stderr.on("data", (text) => (errors += text));
  const exited = new Promise((resolve) => child.once("close", resolve));
  const lines = createInterface({ input: child.stdout });
  const line = await new Promise((resolve, reject) => {
    lines.once("line", resolve);
    child.once("error", reject);
    exited.then((code) => reject(new Error(`\`${program} ${command}\` ended with ${code}: ${errors}`)));
  });
  return {
    value: JSON.parse(line),
    /** Resolves with the exit code and the errors. */
    exited: exited.then((code) => ({ code, errors })),
    async end() {
      child.kill("SIGTERM");
      const late = new AbortController();
      setTimeout(END_TIME, undefined, late).then(kill, () => {});
      const code = await exited;
      late.abort();
      process.removeListener("exit", kill);
      return code;
    },
  };
};

// So that the calls on `exit` are made.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const launch = () =>
  chromium.launch({
    // Playwright needs an absolute path.
    executablePath: process.env.BROWSER ?? "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ],
  });

/** Starts everything. Ends what has started if a part fails. */
export const startAll = async () => {
  const ends = [];
  const end = async () => {
    for (const call of ends.splice(0).reverse()) await call();
  };
  try {
    const state = await mkdtemp(join(tmpdir(), "streamer-browser-"));
    ends.push(() => rm(state, { recursive: true, force: true, maxRetries: 5 }));
    const stack = await start(state, "up");
    ends.push(stack.end);
    const web = await start(state, "web");
    ends.push(web.end);
    const browser = await launch();
    ends.push(() => browser.close());
    return { url: web.value.url, state, stack, web, browser, end };
  } catch (error) {
    await end();
    throw error;
  }
};

/** Opens the page in a context of its own, and records page errors and requests to other servers. */
export const openPage = async ({ browser, url }) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  const check = (address) => {
    if (new URL(address).hostname !== "127.0.0.1") faults.push(`request: ${address}`);
  };
  context.on("request", (request) => check(request.url()));
  page.on("websocket", (socket) => check(socket.url()));
  await page.goto(url);
  return { context, page, faults };
};

/**
 * Gives each frame for the page to `call`, with the number of its socket. `call` passes it on, or another one in its
 * place.
 */
export const between = async (page, call) => {
  let sockets = 0;
  await page.routeWebSocket(/^ws:/, (socket) => {
    const number = ++sockets;
    const pass = (text) => (frame) => socket.send(frame ? JSON.stringify(frame) : text);
    socket.connectToServer().onMessage((text) => call(JSON.parse(text), pass(text), number));
  });
  await page.reload();
};

/** Signs in, and waits until the first device is caught up. */
export const signIn = async (page, user) => {
  await page.getByLabel("User").fill(user);
  await page.getByRole("button", { name: "Sign in" }).click();
  await caughtUp(device(page, 1));
};

/** Returns the panel of a device. */
export const device = (page, number) => page.getByRole("region", { name: `Device ${number}`, exact: true });

export const addDevice = async (page, number) => {
  await page.getByRole("button", { name: "Add a device" }).click();
  await caughtUp(device(page, number));
};

export const caughtUp = (panel) => panel.locator(".state-name", { hasText: /^caughtUp$/ }).waitFor();

export const click = (panel, name) => panel.getByRole("button", { name }).click();

/** Waits until a check passes. Fails with its last error after the deadline. */
export const eventually = async (check, deadline = DEADLINE) => {
  const end = Date.now() + deadline;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
    await setTimeout(POLL_INTERVAL);
  }
};

/** Publishes a message for a user, which is kept. */
export const sendMessage = async ({ url }, user, text) => {
  const response = await fetch(`${url}message`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ tenant: "acme", user, text, keep: true }),
  });
  if (!response.ok) throw new Error(await response.text());
};

/** Returns the texts of the messages of a device, the oldest one first. */
export const messages = async (panel) => (await panel.locator(".messages .text").allTextContents()).reverse();

/** Returns the frames of a device, the oldest one first, each with its title and its verdict. */
export const frames = async (panel) => {
  const rows = await panel.locator(".frames li").evaluateAll((items) =>
    items.map((item) => ({
      direction: item.className,
      title: item.querySelector(".title").textContent,
      verdict: item.querySelector(".badge")?.textContent ?? "",
    })),
  );
  return rows.reverse();
};

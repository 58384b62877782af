/** The page of `streamer web`: a real browser, the client and the local stack. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { lowContrast } from "./contrast.js";
import {
  DEADLINE,
  addDevice,
  between,
  caughtUp,
  click,
  device,
  eventually,
  frames,
  messages,
  openPage,
  sendMessage,
  signIn,
  start,
  startAll,
} from "./harness.js";

let all;
before(async () => (all = await startAll()), { timeout: 4 * DEADLINE });
after(() => all?.end());

/** Time after which a test has failed, in milliseconds. */
const TIMEOUT = 3 * DEADLINE;

let users = 0;

/** Defines a test with a page and a user of its own. Fails if the page reports an error or asks another server. */
const pageTest = (name, body) =>
  test(name, { timeout: TIMEOUT }, async () => {
    const opened = await openPage(all);
    try {
      await body(opened.page, `user-${++users}`);
      assert.deepEqual(opened.faults, []);
    } finally {
      await opened.context.close();
    }
  });

/** Starts a report that takes as long as the router permits, so that a busy machine acts before its end. */
const startLongReport = async (panel) => {
  await panel.locator(".report").evaluate((button) => (button.dataset.seconds = 20));
  await click(panel, "Start a report");
};

/** Waits until the newest report of a device has reached a percentage. */
const reached = (panel, percent) =>
  eventually(async () => assert.ok((await panel.locator("progress").first().evaluate((bar) => bar.value)) >= percent));

const complete = (panel) => panel.getByText("Complete: 1,280 rows").waitFor();

const shows = (panel, texts) => eventually(async () => assert.deepEqual(await messages(panel), texts));

/** Waits until a device has one frame with this verdict and this title, a text or a pattern. */
const hasFrame = (panel, title, verdict) =>
  eventually(async () => {
    const isTitle = (text) => (title instanceof RegExp ? title.test(text) : text === title);
    const found = (await frames(panel)).filter((frame) => isTitle(frame.title) && frame.verdict === verdict);
    assert.equal(found.length, 1, `${title}, ${verdict}`);
  });

describe("a device", { concurrency: 5 }, () => {
  pageTest("connects and shows its state", async (page, user) => {
    await signIn(page, user);
    const panel = device(page, 1);
    assert.equal(await panel.locator(".banner").textContent(), "");
    // The position and the frames follow the state.
    await eventually(async () => assert.equal(await panel.locator(".position").textContent(), "#0"));
    const titles = async () => (await frames(panel)).map(({ title }) => title);
    const expected = ["Connection opened", "Sync from the oldest", "Empty page"];
    await eventually(async () => assert.deepEqual(await titles(), expected));
  });

  pageTest("shows progress on every device", async (page, user) => {
    await signIn(page, user);
    await addDevice(page, 2);
    await click(device(page, 1), "Start a report");
    for (const panel of [device(page, 1), device(page, 2)]) {
      await complete(panel);
      assert.equal(await panel.locator("progress").evaluate((bar) => bar.value), 100);
      const shown = (await frames(panel)).filter(({ verdict }) => verdict === "shown").map(({ title }) => title);
      const percent = shown.filter((title) => title.startsWith("Progress")).map((title) => Number(title.split(" ")[1]));
      assert.ok(percent.length >= 1, `${percent}`);
      assert.deepEqual(percent, [...percent].sort((left, right) => left - right));
      assert.equal(shown.at(-1), "#1  Report complete: 1280 rows");
      assert.deepEqual(await messages(panel), []);
    }
  });

  pageTest("keeps rows of the newest reports", async (page, user) => {
    await signIn(page, user);
    const panel = device(page, 1);
    for (let report = 0; report < 4; report++) await click(panel, "Start a report");
    await eventually(async () => {
      const titles = (await frames(panel)).map(({ title }) => title);
      assert.equal(new Set(titles.filter((title) => title.endsWith("Report complete: 1280 rows"))).size, 4);
    });
    await eventually(async () => assert.equal(await panel.getByText("Complete: 1,280 rows").count(), 3));
    assert.equal(await panel.locator("progress").count(), 3);
  });

  pageTest("completes a report after an interruption", async (page, user) => {
    await signIn(page, user);
    const panel = device(page, 1);
    await startLongReport(panel);
    await reached(panel, 20);
    await click(panel, "Go offline");
    await hasFrame(panel, "#1  Report complete: 1280 rows", "lost");
    assert.equal(await panel.getByText("Complete: 1,280 rows").count(), 0);
    await click(panel, "Come back");
    await complete(panel);
    await hasFrame(panel, "Page #1", "1 shown");
    await caughtUp(panel);
  });

  pageTest("reads missed messages once in order", async (page, user) => {
    await signIn(page, user);
    const panel = device(page, 1);
    await click(panel, "Send me a message");
    await shows(panel, ["Message 1"]);
    await click(panel, "Go offline");
    const expected = ["Message 1"];
    for (const number of [2, 3, 4]) {
      await click(panel, "Send me a message");
      expected.push(`Message ${number}`);
      // The order of messages that are sent at once is up to the queue.
      await hasFrame(panel, `#${number}  Message ${number}`, "lost");
    }
    // A return to the foreground makes the client check its connection.
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await panel.getByRole("status").getByText("Connection lost. Reconnecting …").waitFor();
    // The server has not learned that the client closed the connection.
    await click(panel, "Send me a message");
    expected.push("Message 5");
    await hasFrame(panel, "#5  Message 5", "lost");
    await click(panel, "Come back");
    await shows(panel, expected);
    assert.equal(await panel.locator(".banner").textContent(), "");
    await click(panel, "Send me a message");
    await shows(panel, [...expected, "Message 6"]);
    assert.equal(await panel.getByText("from the mailbox").count(), 4);
  });

  pageTest("shows messages after sleep", async (page, user) => {
    let isAsleep = false;
    await page.clock.install();
    // The first connection breaks during the sleep: nothing arrives, and nothing closes it.
    await between(page, (_frame, pass, socket) => {
      if (!isAsleep || socket > 1) pass();
    });
    await signIn(page, user);
    const other = await openPage(all);
    try {
      await signIn(other.page, user);
      isAsleep = true;
      await sendMessage(all, user, "Good morning");
      await shows(device(other.page, 1), ["Good morning"]);
      const panel = device(page, 1);
      assert.deepEqual(await messages(panel), []);
      await page.clock.fastForward("05:00");
      await shows(panel, ["Good morning"]);
      await hasFrame(panel, "Page #1", "1 shown");
    } finally {
      await other.context.close();
    }
  });

  pageTest("replaces its connection before the end of it", async (page, user) => {
    await page.clock.install();
    // API Gateway's 2 h are almost over, so the client waits for the shortest time, a minute.
    await between(page, (frame, pass) => pass(frame.expires_in ? { ...frame, expires_in: 1 } : frame));
    await signIn(page, user);
    const panel = device(page, 1);
    await sendMessage(all, user, "Before");
    await shows(panel, ["Before"]);
    // In steps, since a jump of more than 30 s is taken for sleep.
    for (let step = 0; step < 3; step++) await page.clock.fastForward("00:25");
    const titles = async () => (await frames(panel)).map(({ title }) => title);
    const isEnd = (title) => title.startsWith("Connection closed");
    await eventually(async () => assert.ok((await titles()).some(isEnd)));
    const found = await titles();
    const handOver = found.slice(found.indexOf("#1  Before") + 1, found.findIndex(isEnd));
    assert.deepEqual(handOver, ["Connection opened", "Sync after #1", "Empty page"]);
    await sendMessage(all, user, "After");
    await shows(panel, ["Before", "After"]);
  });

  pageTest("shows the same order as other devices", async (page, user) => {
    await signIn(page, user);
    await addDevice(page, 2);
    const other = await openPage(all);
    try {
      await signIn(other.page, user);
      const panels = [device(page, 1), device(page, 2), device(other.page, 1)];
      await Promise.all(Array.from({ length: 12 }, (_, index) => sendMessage(all, user, `Text ${index}`)));
      await eventually(async () => assert.equal((await messages(panels[0])).length, 12));
      const order = await messages(panels[0]);
      for (const panel of panels.slice(1)) await shows(panel, order);
      assert.equal(new Set(order).size, 12);
    } finally {
      await other.context.close();
    }
  });

  pageTest("judges frames out of order and twice", async (page, user) => {
    let text1, progress;
    await between(page, (frame, pass) => {
      const isProgress = frame.progress !== undefined;
      if (frame.stream && frame.seq === 1 && !text1) {
        text1 = pass;
      } else if (isProgress && progress === undefined) {
        progress = pass;
      } else {
        pass();
        if (frame.stream && frame.seq === 2) text1();
        if (frame.stream && frame.seq === 3) pass();
        // A busy worker may send no other progress before the end.
        if (progress && (isProgress || frame.payload?.type === "complete")) {
          progress();
          progress = null;
        }
      }
    });
    await signIn(page, user);
    const panel = device(page, 1);
    await sendMessage(all, user, "Text 1");
    await eventually(() => assert.ok(text1));
    await sendMessage(all, user, "Text 2");
    await shows(panel, ["Text 1", "Text 2"]);
    await hasFrame(panel, "#2  Text 2", "held, then shown");
    await sendMessage(all, user, "Text 3");
    await hasFrame(panel, "#3  Text 3", "shown");
    await hasFrame(panel, "#3  Text 3", "duplicate");
    await startLongReport(panel);
    await hasFrame(panel, /^Progress \d+ %$/, "late");
    await shows(panel, ["Text 1", "Text 2", "Text 3"]);
  });

  pageTest("shows a gap", async (page, user) => {
    await signIn(page, user);
    await sendMessage(all, user, "Text 1");
    await shows(device(page, 1), ["Text 1"]);
    await between(page, (frame, pass) => {
      if (frame.through === 1) pass({ ...frame, messages: [], missing: [{ from: 1, to: 1, reason: "expired" }] });
      else pass();
    });
    await signIn(page, user);
    await device(page, 1).getByText("Some messages are missing: expired").waitFor();
    await hasFrame(device(page, 1), "Page #1", "1 gap");
  });

  pageTest("needs no mouse", async (page, user) => {
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.name);
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "tenant");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Control+A");
    await page.keyboard.type(user);
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Sign in");
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid");
    await page.keyboard.press("Enter");
    await caughtUp(device(page, 1));
    await eventually(async () => assert.equal(await focused(), "Start a report"));
    await page.keyboard.press("Enter");
    await reached(device(page, 1), 10);
  });

  pageTest("fits every width and colour scheme", async (page, user) => {
    const fits = async () => {
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        for (const width of [1280, 400]) {
          await page.setViewportSize({ width, height: 900 });
          const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          assert.ok(content <= window, `${content} > ${window}`);
          assert.deepEqual(await page.evaluate(lowContrast), [], colorScheme);
        }
      }
    };
    await fits();
    user = `${user}-${"long".repeat(60)}`;
    await signIn(page, user);
    await addDevice(page, 2);
    await sendMessage(all, user, `A long text without spaces: ${"x".repeat(400)}`);
    const panel = device(page, 1);
    await eventually(async () => assert.equal((await messages(panel)).length, 1));
    await panel.getByLabel("Full text").check();
    await click(device(page, 2), "Go offline");
    await fits();
  });
});

// A killed worker's messages return after the visibility timeout, so no other test runs meanwhile.
describe("the worker", () => {
  pageTest("is killed during a report that completes", async (page, user) => {
    await signIn(page, user);
    const panel = device(page, 1);
    await startLongReport(panel);
    await reached(panel, 20);
    await click(page, "Kill the worker");
    await page.getByText(/^Killed \d+ worker process/).waitFor();
    await complete(panel);
  });
});

describe("the command", () => {
  test("ends on SIGTERM", { timeout: TIMEOUT }, async () => {
    const web = await start(all.state, "web");
    assert.equal((await fetch(web.value.url)).status, 200);
    assert.equal(await web.end(), 143);
    await assert.rejects(fetch(web.value.url));
  });

  test("ends with the stack", { timeout: TIMEOUT }, async () => {
    assert.equal(await all.stack.end(), 143);
    const { code, errors } = await all.web.exited;
    assert.equal(code, 1);
    assert.match(errors, /the stack has ended, and with it the page: start one with `streamer up`/);
  });
});

/**
 * Takes the picture of the page for the docs, `docs/images/web.png`. With the argument of a folder, takes one for each
 * width and colour scheme into it.
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { addDevice, caughtUp, click, device, eventually, frames, openPage, signIn, startAll } from "./harness.js";

/** The width of the picture of the docs, in pixels. */
const WIDTH = 1280;

/** Waits until a device has a frame. */
const hasFrame = (panel, title) =>
  eventually(async () => {
    const found = (await frames(panel)).some((frame) => frame.title.includes(title));
    if (!found) throw new Error(`no frame \`${title}\``);
  });

/** Brings two devices into the middle of a report. The second one was offline before, and is offline again. */
const play = async (page, user) => {
  await signIn(page, user);
  await addDevice(page, 2);
  const [first, second] = [device(page, 1), device(page, 2)];
  await click(first, "Send me a message");
  await hasFrame(second, "Message 1");
  await click(second, "Go offline");
  await click(first, "Send me a message");
  await hasFrame(second, "Message 2");
  await click(second, "Come back");
  await hasFrame(second, "Page #2");
  await caughtUp(second);
  await click(first, "Start a report");
  await hasFrame(second, "Progress 30 %");
  await click(second, "Go offline");
  await hasFrame(second, "Progress 70 %");
};

const [folder] = process.argv.slice(2);
const all = await startAll();
try {
  const schemes = folder ? ["light", "dark"] : ["light"];
  const widths = folder ? [1280, 400] : [WIDTH];
  for (const colorScheme of schemes) {
    for (const width of widths) {
      const { page, context } = await openPage(all);
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 700 });
      if (folder) await page.screenshot({ path: join(folder, `sign-in-${colorScheme}-${width}.png`) });
      await play(page, folder ? `anna-${colorScheme}-${width}` : "anna");
      const images = fileURLToPath(new URL("../../docs/images/", import.meta.url));
      await mkdir(images, { recursive: true });
      const path = folder ? join(folder, `devices-${colorScheme}-${width}.png`) : join(images, "web.png");
      await page.screenshot({ path, fullPage: true });
      await context.close();
    }
  }
} finally {
  await all.end();
}

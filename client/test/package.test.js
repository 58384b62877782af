import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { MAX_SIZE, measure } from "../bench/size.js";

test("client fits in 5 KiB", () => {
  const { compressed } = measure();
  assert.ok(compressed <= MAX_SIZE, `${compressed} bytes`);
});

test("package has no dependencies", () => {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  assert.deepEqual([manifest.dependencies, manifest.type, manifest.license], [undefined, "module", "Apache-2.0"]);
});

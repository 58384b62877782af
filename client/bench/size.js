/** Measures the client as a browser loads it: bundled and minified by esbuild, compressed by gzip -9. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { buildSync } from "esbuild";

/** Largest size in bytes. */
export const MAX_SIZE = 5120;

/** Returns the size in bytes, minified and compressed. */
export function measure() {
  const { outputFiles } = buildSync({
    entryPoints: [fileURLToPath(new URL("../index.js", import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
  });
  const { contents } = outputFiles[0];
  return { minified: contents.length, compressed: gzipSync(contents, { level: 9 }).length };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { minified, compressed } = measure();
  console.log(`${minified} bytes minified, ${compressed} of at most ${MAX_SIZE} compressed`);
  if (compressed > MAX_SIZE) process.exitCode = 1;
}

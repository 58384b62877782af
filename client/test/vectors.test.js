import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { FILE, read, run } from "./vectors.js";

// `UPDATE_VECTORS=1` writes the effects into the file, to be reviewed.
if (process.env.UPDATE_VECTORS) {
  const vectors = read();
  for (const { name, stored, steps } of vectors.cases) {
    console.log(name);
    run({ stored, steps }).forEach((effects, step) => (steps[step].effects = effects));
  }
  const compact = (value) => JSON.stringify(value).replace(/,"/g, ', "').replace(/":/g, '": ');
  const cases = vectors.cases.map(({ name, stored, steps }) =>
    [
      "    {",
      `      "name": ${JSON.stringify(name)},`,
      ...(stored ? [`      "stored": ${compact(stored)},`] : []),
      '      "steps": [',
      steps.map((step) => `        ${compact(step)}`).join(",\n"),
      "      ]",
      "    }",
    ].join("\n"),
  );
  writeFileSync(FILE, `{\n  "description": ${JSON.stringify(vectors.description)},\n  "cases": [\n${cases.join(",\n")}\n  ]\n}\n`);
}

for (const { name, stored, steps } of read().cases) {
  test(`vector: ${name}`, () => {
    run({ stored, steps }).forEach((effects, step) => assert.deepEqual(effects, steps[step].effects, `step ${step + 1}`));
  });
}

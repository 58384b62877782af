import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const FOLDER = fileURLToPath(new URL("..", import.meta.url));

test("sqs client is the only dependency", () => {
  const manifest = JSON.parse(readFileSync(`${FOLDER}package.json`, "utf8"));
  assert.deepEqual([manifest.dependencies, Object.keys(manifest.peerDependencies)], [undefined, ["@aws-sdk/client-sqs"]]);
  const imported = readdirSync(FOLDER)
    .filter((file) => file.endsWith(".js"))
    .flatMap((file) => [...readFileSync(`${FOLDER}${file}`, "utf8").matchAll(/^(?:import|export) .* from "([^"]+)"/gm)])
    .map(([, name]) => name)
    .filter((name) => !name.startsWith("."));
  assert.deepEqual([...new Set(imported)].sort(), ["@aws-sdk/client-sqs", "node:crypto"]);
});

test("package has modules, types and license only", () => {
  const output = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: FOLDER, encoding: "utf8", stdio: "pipe" });
  const [{ files }] = JSON.parse(output.slice(output.indexOf("[")));
  const names = files.map(({ path }) => path).sort();
  const modules = readdirSync(FOLDER).filter((file) => file.endsWith(".js"));
  const expected = [...modules, ...modules.map((file) => file.replace(/js$/, "d.ts")), "LICENSE", "README.md", "package.json"];
  assert.deepEqual(names, expected.sort());
});

// `prepack` compares the package's declarations with the same file.
test("types hold for users of TypeScript", () => {
  const tsc = `${FOLDER}node_modules/typescript/bin/tsc`;
  execFileSync(process.execPath, [tsc, "--project", "tsconfig.json"], { cwd: FOLDER, encoding: "utf8", stdio: "pipe" });
});

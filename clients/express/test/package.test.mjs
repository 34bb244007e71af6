// The package as npm would publish it.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const here = dirname(dirname(fileURLToPath(import.meta.url)));
const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"];

test("The lock file and the package name no registry, and the package is public.", () => {
  const lock = readFileSync(join(here, "package-lock.json"), "utf8");
  assert.doesNotMatch(lock, /"resolved"|registry/);
  const description = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
  assert.deepEqual([description.private, description.license, description.version], [false, "Apache-2.0", "0.1.0"]);
});

test("The packed package installs, works with import and require, and has contract, licence and types.", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "sessiond-package-"));
  try {
    // The tests have built dist/ already; a second build beside them would take it away from the others.
    const packed = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
      cwd: here,
    });
    const [{ filename, files }] = Object.values(JSON.parse(packed.stdout));
    const paths = files.map((file) => file.path);
    for (const path of [
      "LICENSE",
      "README.md",
      "dist/index.d.mts",
      "dist/store.d.ts",
      "proto/sessiond/v1/session_authority.proto",
    ]) {
      assert.ok(paths.includes(path), path);
    }
    assert.deepEqual(
      paths.filter((path) => /^(src|test|node_modules)\/|generated/.test(path)),
      [],
    );
    writeFileSync(join(folder, "package.json"), '{"name": "app", "version": "0.0.0", "private": true}');
    try {
      await run("npm", ["install", ...quiet, join(folder, filename), "express", "express-session"], { cwd: folder });
    } catch (error) {
      t.skip(`npm cannot install the dependencies: ${String(error.stderr).trim().split("\n").at(-1)}`);
      return;
    }
    const names =
      "[typeof m.sessiond, typeof m.requires, typeof s.SessionStore, m.sessiond({ target: '127.0.0.1:1' }).close()]";
    const print = `console.log(JSON.stringify(${names}))`;
    const programs = {
      "app.mjs": `import * as m from "@sessiond/express"; import * as s from "@sessiond/express/store"; ${print}`,
      "app.cjs": `const m = require("@sessiond/express"), s = require("@sessiond/express/store"); ${print}`,
      "one.mjs": `import { createRequire } from "node:module"; import { Token } from "@sessiond/express";
        console.log(createRequire(import.meta.url)("@sessiond/express").Token === Token)`,
      "alone.cjs": `require("@sessiond/express");
        console.log(Object.keys(require.cache).some((file) => /express-session/.test(file)))`,
    };
    const printed = {};
    for (const [name, text] of Object.entries(programs)) {
      writeFileSync(join(folder, name), text);
      printed[name] = (await run(process.execPath, [name], { cwd: folder })).stdout.trim();
    }
    const all = '["function","function","function",null]';
    assert.deepEqual(printed, { "app.mjs": all, "app.cjs": all, "one.mjs": "true", "alone.cjs": "false" });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

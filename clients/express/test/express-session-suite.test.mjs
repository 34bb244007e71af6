// express-session's own test suite, run with our store in place of its MemoryStore. Nothing of it is in this
// repository.
//
// The published packages have no tests, with one exception: 1.0.0. Its suite passes with the current express-session,
// so that is what runs everywhere. The suite of the current version is only in the project's repository on GitHub (or
// where EXPRESS_SESSION_REPOSITORY says); without access to it that part skips.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { AuthorityProcess } from "./support/authority.mjs";

const require = createRequire(import.meta.url);
const run = promisify(execFile);
const here = dirname(fileURLToPath(import.meta.url));
const builds = join(here, "..", "build");
const current = require("express-session/package.json").version;
const repository = process.env.EXPRESS_SESSION_REPOSITORY ?? "https://github.com/expressjs/session";
/** What the suite of 1.0.0 needs: the versions that its package.json names, and a mocha that knows this Node. */
const OLD_NEEDS = ["mocha@10.8.2", "connect@2.13.0", "supertest@0.9.0", "should@3.1.2", "cookie-parser@1.0.0"];

let authority;
before(async () => {
  authority = await AuthorityProcess.start();
});
after(() => authority?.stop());

/** Fetch something once into a folder of build/. Returns the reason if it cannot be had. */
async function fetched(name, fetch) {
  const folder = join(builds, name);
  if (existsSync(folder)) {
    return { folder };
  }
  mkdirSync(builds, { recursive: true });
  const unfinished = mkdtempSync(join(builds, "unfinished-"));
  try {
    await fetch(unfinished);
    renameSync(unfinished, folder);
    return { folder };
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    return {
      reason: String(error.stderr ?? error.message)
        .trim()
        .split("\n")
        .at(-1),
    };
  }
}

/** Run a package's suite with our store. `original`: the express-session that it drives. */
async function runSuite(folder, { original, broken = "" }) {
  const copy = mkdtempSync(join(tmpdir(), "express-session-suite-"));
  try {
    cpSync(folder, copy, { recursive: true, verbatimSymlinks: true });
    const kept = join(copy, "original.js");
    if (original === undefined) {
      renameSync(join(copy, "index.js"), kept);
    }
    cpSync(join(here, "suite/index.cjs"), join(copy, "index.js"));
    const report = join(copy, "report.json");
    const mocha = join(copy, "node_modules/mocha/bin/mocha.js");
    const options = ["--exit", "--timeout", "60000", "--reporter", "json", "--reporter-option", `output=${report}`];
    const env = {
      ...process.env,
      NO_DEPRECATION: "express-session",
      NODE_OPTIONS: "--no-warnings",
      SUITE_BREAK: broken,
      SUITE_ORIGINAL: original ?? kept,
      SUITE_STORE: require.resolve("@sessiond/express/store"),
      SUITE_TARGET: authority.target,
    };
    await run(process.execPath, [mocha, ...options, "test/*.js"], { cwd: copy, env }).catch(() => undefined);
    const { stats, failures } = JSON.parse(readFileSync(report, "utf8"));
    return { ...stats, failed: failures.map((failure) => failure.fullTitle) };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

async function oldSuite() {
  return fetched("suite-1.0.0", async (folder) => {
    await run("npm", ["pack", "--silent", "express-session@1.0.0"], { cwd: folder });
    await run("tar", ["xzf", "express-session-1.0.0.tgz", "--strip-components=1", "package/test"], { cwd: folder });
    writeFileSync(join(folder, "package.json"), '{"name": "suite", "version": "0.0.0", "private": true}');
    const quiet = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts"];
    await run("npm", ["install", ...quiet, ...OLD_NEEDS], { cwd: folder });
  });
}

test("The suite of express-session 1.0.0 passes with the current express-session on our store.", async (t) => {
  const { folder, reason } = await oldSuite();
  if (reason !== undefined) {
    t.skip(`the suite cannot be fetched: ${reason}`);
    return;
  }
  const result = await runSuite(folder, { original: require.resolve("express-session") });
  t.diagnostic(`express-session ${current}, suite of 1.0.0: ${result.passes} passed, ${result.failures} failed`);
  assert.deepEqual(result.failed, []);
  assert.equal(result.passes, 28);
});

test("The same suite fails on a store that does not read or does not write.", async (t) => {
  const { folder, reason } = await oldSuite();
  if (reason !== undefined) {
    t.skip(`the suite cannot be fetched: ${reason}`);
    return;
  }
  for (const broken of ["get", "set"]) {
    const result = await runSuite(folder, { original: require.resolve("express-session"), broken });
    assert.ok(result.failures > 0, broken);
  }
});

test("The suite of the current express-session passes on our store.", async (t) => {
  const { folder, reason } = await fetched(`suite-${current}`, async (folder) => {
    const options = ["clone", "--quiet", "--depth", "1", "--branch", `v${current}`, repository, "."];
    const env = { ...process.env, GIT_TERMINAL_PROMPT: "0" };
    await run("git", options, { cwd: folder, env, timeout: 60_000 });
    await run("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: folder });
    await run("sh", ["test/support/gencert.sh"], { cwd: folder });
  });
  if (reason !== undefined) {
    t.skip(`the suite of ${current} is only in its repository, which cannot be reached: ${reason}`);
    return;
  }
  const result = await runSuite(folder, {});
  t.diagnostic(`express-session ${current}, its own suite: ${result.passes} passed, ${result.failures} failed`);
  assert.deepEqual(result.failed, []);
  assert.ok(result.passes > 0);
});

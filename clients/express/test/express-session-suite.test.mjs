// express-session's own test suite, run with our store in place of its MemoryStore. Nothing of it is in this
// repository.
//
// The published packages have no tests, with one exception: 1.0.0. Its suite passes with the current express-session,
// so that is what runs everywhere. The suite of the current version is only in the project's repository, which is
// fetched from GitHub. If SESSIOND_TEST_SUITES names a folder, its folder `session` is used instead: a clone that has
// the commit, or the files without Git. If neither can be had, the tests that need it skip.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { AuthorityProcess } from "./support/authority.mjs";

const require = createRequire(import.meta.url);
const run = promisify(execFile);
const here = dirname(fileURLToPath(import.meta.url));
const builds = join(here, "..", "build");
const current = require("express-session/package.json").version;
const REPOSITORY = "https://github.com/expressjs/session";
/** The commit of the current version, and its version. */
const [COMMIT, VERSION] = ["c10b2a383841766899f6dcf53c8aff8c7fd3d2e7", "1.19.0"];
/** What the current suite needs of its devDependencies. */
const NEEDS = ["after", "cookie-parser", "express", "mocha", "supertest"];
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

/**
 * Run a package's suite. `original`: the express-session that it drives, if not its own. `stand`: what takes its place.
 * `titles`: only these cases.
 */
async function runSuite(folder, { original, broken = "", stand = "store.cjs", titles, dryRun = false }) {
  const copy = mkdtempSync(join(tmpdir(), "express-session-suite-"));
  try {
    cpSync(folder, copy, { recursive: true, verbatimSymlinks: true });
    const kept = join(copy, "original.js");
    if (original === undefined) {
      renameSync(join(copy, "index.js"), kept);
    }
    cpSync(join(here, "suite", stand), join(copy, "index.js"));
    const report = join(copy, "report.json");
    const mocha = join(copy, "node_modules/mocha/bin/mocha.js");
    const options = ["--exit", "--timeout", "60000", "--reporter", "json", "--reporter-option", `output=${report}`];
    // Some cases expect that a request takes less than a second, which a busy machine misses.
    options.push("--retries", "2");
    if (titles !== undefined) {
      options.push("--grep", `^(${titles.map((title) => title.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&")).join("|")})$`);
    }
    if (dryRun) {
      options.push("--dry-run");
    }
    const env = {
      ...process.env,
      NO_DEPRECATION: "express-session",
      NODE_OPTIONS: "--no-warnings",
      SUITE_AUTHORITY: join(here, "../dist/authority.js"),
      SUITE_BREAK: broken,
      SUITE_MIDDLEWARE: require.resolve("@sessiond/express"),
      SUITE_ORIGINAL: original ?? kept,
      SUITE_STORE: require.resolve("@sessiond/express/store"),
      SUITE_TARGET: authority.target,
    };
    const files = stand === "store.cjs" ? ["test/*.js"] : ["test/session.js"];
    const ended = await run(process.execPath, [mocha, ...options, ...files], { cwd: copy, env }).catch(
      (error) => error,
    );
    assert.ok(existsSync(report), `mocha wrote no report: ${ended.stderr}`);
    const { stats, failures, tests } = JSON.parse(readFileSync(report, "utf8"));
    const titlesOf = (cases) => cases.map(({ fullTitle }) => fullTitle);
    return { ...stats, failed: titlesOf(failures), titles: titlesOf(tests) };
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

/** The suite of the current version, with its dependencies. */
async function currentSuite() {
  const given = process.env.SESSIOND_TEST_SUITES ?? "";
  const source = given === "" ? undefined : join(resolve(given), "session");
  const isClone = source === undefined || existsSync(join(source, ".git")) || existsSync(join(source, "HEAD"));
  // Files without Git may change between two runs, so their suite is not kept.
  const name = isClone ? `suite-${COMMIT.slice(0, 12)}` : "suite-given";
  if (!isClone) {
    rmSync(join(builds, name), { recursive: true, force: true });
  }
  return fetched(name, async (folder) => {
    if (source !== undefined && !existsSync(source)) {
      throw new Error(`SESSIOND_TEST_SUITES is ${given}, and there is no folder ${source}; clone ${REPOSITORY} there`);
    }
    if (isClone) {
      const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("GIT_")));
      const options = { cwd: folder, env: { ...env, GIT_TERMINAL_PROMPT: "0" }, timeout: 60_000 };
      await run("git", ["init", "--quiet"], options);
      await run("git", ["fetch", "--quiet", "--depth", "1", source ?? REPOSITORY, COMMIT], options);
      await run("git", ["checkout", "--quiet", "FETCH_HEAD"], options);
    } else {
      cpSync(source, folder, { recursive: true, filter: (path) => basename(path) !== "node_modules" });
    }
    const file = join(folder, "package.json");
    const description = JSON.parse(readFileSync(file, "utf8"));
    if (description.version !== VERSION) {
      throw new Error(`${source} is of version ${description.version}, not ${VERSION}`);
    }
    const needed = Object.entries(description.devDependencies).filter(([name]) => NEEDS.includes(name));
    writeFileSync(file, JSON.stringify({ ...description, devDependencies: Object.fromEntries(needed) }));
    await run("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: folder });
    await run("sh", ["test/support/gencert.sh"], { cwd: folder });
  });
}

test("The pinned commit of express-session is that of the version that the lock file installs.", () => {
  assert.equal(current, VERSION);
});

test("The suite of the current express-session passes on our store.", async (t) => {
  const { folder, reason } = await currentSuite();
  if (reason !== undefined) {
    t.skip(`the suite of ${current} is only in its repository, which cannot be had: ${reason}`);
    return;
  }
  const result = await runSuite(folder, {});
  t.diagnostic(`express-session ${current}, its own suite: ${result.passes} passed, ${result.failures} failed`);
  assert.deepEqual([result.failed, result.pending, result.passes], [[], 0, 160]);
});

/** The cases of test/session.js that our middleware passes. */
const CASES = [
  "should create a new session",
  "should load session from cookie sid",
  "should create multiple sessions",
  "should handle multiple res.end calls",
  "should handle res.end(null) calls",
  "rolling option should default to false",
  "saveUninitialized option should prevent save of uninitialized session",
  "res.end patch should correctly handle res.end/res.write patched prior",
  "res.end patch should correctly handle res.end/res.write patched after",
  "res.end patch should error when res.end is called twice",
  "req.session .cookie .* should preserve cookies set before writeHead is called",
  "req.session .cookie .* should preserve cookies set in writeHead",
].map((title) => `session() ${title}`);

const AGAIN = "the cookie is sent when the token changes, and not with every change of the data";
const DATA = "req.session is the data and nothing else: it has no methods, and no member `cookie`";
const METHODS = "has no such method: req.sessiond has others, such as logout, login and save";
const POLICY = "the authority's policy says what the cookie is called, its attributes, and how long sessions live";
const SIGNED = "the application has no secret, and signs no cookie: the authority makes the tokens";
const STORE = "looks into the store, or breaks it; ours writes to the authority, and only what has changed";
const VISITOR = "expects a session for a visitor of whom there is nothing to keep; ours opens none";
/** The beginnings of the titles of the other cases, with the reason why each was left out. */
const LEFT_OUT = {
  "cookie option": POLICY,
  "cookieParser()": SIGNED,
  "genid option": SIGNED,
  "key option": POLICY,
  "name option": POLICY,
  "proxy option": POLICY,
  "req.session .cookie ": POLICY,
  "req.session .destroy()": METHODS,
  "req.session .regenerate()": METHODS,
  "req.session .reload()": METHODS,
  "req.session .save()": METHODS,
  "req.session .touch()": METHODS,
  "req.session should be set when store reconnects": "an authority that is out of reach is answered with 503",
  "req.session should not be set if store is disconnected": "an authority that is out of reach is answered with 503",
  "req.session should not have enumerable methods": DATA,
  "req.session should only set-cookie when modified": AGAIN,
  "req.session should persist": STORE,
  "resave option": STORE,
  "rolling option should force": AGAIN,
  "rolling option should not force": AGAIN,
  "saveUninitialized option should default": VISITOR,
  "saveUninitialized option should force": VISITOR,
  "saveUninitialized option should pass": STORE,
  "saveUninitialized option should prevent uninitialized session from being touched": STORE,
  "saveUninitialized option should still": STORE,
  "secret option": SIGNED,
  "should do nothing if req.session exists": "two middlewares that provide req.session are a mistake with ours",
  "should error without secret": SIGNED,
  "should export constructors": "is about the classes of express-session",
  "should get secret from req.secret": SIGNED,
  "should handle empty req.url": VISITOR,
  "should handle reserved properties in storage": STORE,
  "should not save with bogus req.sessionID": "there is no req.sessionID: the token is in no member of the request",
  "should only have session data enumerable (and cookie)": DATA,
  "should pass session fetch error": STORE,
  "should treat ENOENT session fetch error as not found": STORE,
  "should update cookie expiration when slow write": AGAIN,
  "synchronous store": STORE,
  "unset option": "to end a session, call req.sessiond.logout(); req.session cannot be deleted",
  "when response ended": STORE,
  "when session expired in store": STORE,
  "when session without cookie property in store": STORE,
  "when sid not in store": "shortly after a session has ended, its cookie stays, and a change of its data gets 401",
  "when sid not properly signed": SIGNED,
};

test("Our middleware passes the listed cases of express-session's suite; the others have reasons.", async (t) => {
  const { folder, reason } = await currentSuite();
  if (reason !== undefined) {
    t.skip(`the suite of ${current} is only in its repository, which cannot be had: ${reason}`);
    return;
  }
  const all = (await runSuite(folder, { stand: "middleware.cjs", dryRun: true })).titles;
  const others = all.filter((title) => !CASES.includes(title));
  const beginnings = Object.keys(LEFT_OUT).map((beginning) => `session() ${beginning}`);
  assert.deepEqual(
    others.filter((title) => !beginnings.some((beginning) => title.startsWith(beginning))),
    [],
  );
  assert.deepEqual(
    beginnings.filter((beginning) => !others.some((title) => title.startsWith(beginning))),
    [],
  );
  const result = await runSuite(folder, { stand: "middleware.cjs", titles: CASES });
  t.diagnostic(`express-session ${current}: ${result.passes} of ${all.length} cases with our middleware`);
  assert.deepEqual([result.failed, result.titles.toSorted()], [[], CASES.toSorted()]);
  const blind = await runSuite(folder, { stand: "middleware.cjs", titles: CASES, broken: "get" });
  assert.ok(blind.failed.includes("session() should load session from cookie sid"));
});

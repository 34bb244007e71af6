// The store for express-session before a real authority.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { inspect, promisify } from "node:util";

import express from "express";
import session from "express-session";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser } from "./support/site.mjs";

const require = createRequire(import.meta.url);
const { SessionStore } = require("@sessiond/express/store");
const { Authority } = require("../dist/authority.js");

let authority;
let client;
before(async () => {
  authority = await AuthorityProcess.start();
  client = new Authority({ target: authority.target, timeout: 30_000 });
});
after(async () => {
  client?.close();
  await authority?.stop();
});

let stores = 0;

/** A store of one test, with promises in place of callbacks. `sibling` is the same store in another process. */
function newStore(options = {}) {
  const settings = { target: authority.target, timeout: 30_000, name: `store-${(stores += 1)}`, ...options };
  return {
    ...promised(new SessionStore(settings)),
    sibling: () => promised(new SessionStore(settings)),
    name: settings.name,
  };
}

function promised(store) {
  const methods = ["get", "set", "destroy", "touch", "all", "length", "clear"];
  return { store, ...Object.fromEntries(methods.map((name) => [name, promisify(store[name]).bind(store)])) };
}

const cookieOf = (maxAge) => ({
  originalMaxAge: maxAge,
  expires: new Date(Date.now() + maxAge).toISOString(),
  httpOnly: true,
  path: "/",
});
const forever = { originalMaxAge: null, expires: null, httpOnly: true, path: "/" };

async function withApp(store, options, use) {
  const app = express();
  app.set("env", "test");
  app.use(express.urlencoded({ extended: false }));
  app.use(session({ store, secret: "keyboard cat", resave: false, saveUninitialized: false, ...options }));
  app.get("/", (req, res) => res.json({ id: req.sessionID, cart: req.session.cart ?? [] }));
  app.post("/cart", (req, res) => {
    req.session.cart = [...(req.session.cart ?? []), req.body.item];
    res.end();
  });
  app.post("/login", (req, res, next) => {
    req.session.regenerate((error) => {
      req.session.user = "alice";
      res.status(error ? 500 : 200).end();
    });
  });
  app.post("/logout", (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.end())));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    await use({ port: server.address().port, app });
  } finally {
    server.closeAllConnections();
    server.close();
    store.close();
  }
}

test("What was set is got, in this process and in another one, and an unknown id has nothing.", async () => {
  const store = newStore();
  const data = { cart: ["teapot"], nested: { a: [1, null, "ü"] }, cookie: forever };
  await store.set("sid", { ...data });
  assert.deepEqual(await store.get("sid"), data);
  assert.deepEqual(await store.sibling().get("sid"), data);
  assert.equal(await store.get("other"), undefined);
  await store.set("sid", { only: 1, cookie: forever });
  assert.deepEqual(await store.sibling().get("sid"), { only: 1, cookie: forever });
});

test("A session that was destroyed is gone, and no late save brings it back.", async () => {
  const store = newStore();
  const elsewhere = store.sibling();
  await store.set("sid", { a: 1, cookie: forever });
  const loaded = await store.get("sid");
  const others = await elsewhere.get("sid");
  await store.destroy("sid");
  for (const [late, data] of [
    [store, loaded],
    [elsewhere, others],
    [store, { a: 2, cookie: forever }],
    [store.sibling(), { a: 3, cookie: forever }],
  ]) {
    await late.set("sid", data);
    await late.touch("sid", data);
    assert.equal(await late.get("sid"), undefined);
    assert.equal(await store.sibling().get("sid"), undefined);
  }
  assert.equal(await store.length(), 0);
  await store.destroy("sid");
});

test("No late save brings a session back when the authority has dropped its answers.", async () => {
  const store = newStore({ application: "forgetful" });
  await store.set("sid", { a: 1, cookie: forever });
  await store.destroy("sid");
  const other = new Authority({ target: authority.target, timeout: 30_000, application: "forgetful" });
  const requestId = randomUUID();
  const open = async () => (await other.call("CreateSession", {}, requestId)).session.sessionId;
  const first = await open();
  while ((await open()) === first);
  other.close();
  await store.sibling().set("sid", { a: 2, cookie: forever });
  assert.equal(await store.length(), 0);
});

test("A first save that arrives after its session was destroyed saves nothing.", async () => {
  const store = newStore();
  await store.destroy("sid");
  await store.set("sid", { a: 1, cookie: forever });
  assert.equal(await store.get("sid"), undefined);
  assert.equal(await store.sibling().get("sid"), undefined);
});

test("First saves of one id at the same time open one session.", async () => {
  const store = newStore();
  const writers = [store, store, store.sibling(), store.sibling()];
  await Promise.all(writers.map((writer, index) => writer.set("sid", { index, cookie: forever })));
  assert.equal(await store.length(), 1);
  assert.equal(typeof (await store.get("sid")).index, "number");
});

test("A session whose cookie has expired is not found, not listed, and not counted.", async () => {
  const store = newStore({ touchAfter: 0 });
  await store.set("old", { cookie: cookieOf(-1) });
  await store.set("new", { cookie: cookieOf(60_000), a: 1 });
  assert.equal(await store.get("old"), undefined);
  assert.deepEqual(
    (await store.all()).map((item) => item.a),
    [1],
  );
  assert.equal(await store.length(), 1);
  const kept = await store.get("new");
  kept.cookie = cookieOf(-1);
  await store.touch("new", kept);
  assert.equal(await store.length(), 0);
});

test("A touch writes the cookie alone, and only when its expiry has moved far enough.", async () => {
  const store = newStore({ touchAfter: 10_000 });
  const [start, near, far] = [60_000, 69_999, 70_000].map((ms) => new Date(ms + 1e13).toISOString());
  const cookie = (expires) => ({ ...cookieOf(60_000), expires });
  await store.set("sid", { a: 1, cookie: cookie(start) });
  await store.touch("sid", { a: 2, cookie: cookie(near) });
  assert.equal((await store.get("sid")).cookie.expires, start);
  await store.touch("sid", { a: 2, cookie: cookie(far) });
  assert.deepEqual(await store.get("sid"), { a: 1, cookie: cookie(far) });
  await store.touch("unknown", { cookie: cookie(far) });
  assert.equal(await store.length(), 1);
});

test("Clearing ends the sessions of this store and of no other.", async () => {
  const [store, other] = [newStore(), newStore()];
  for (const sid of ["a", "b", "c"]) {
    await store.set(sid, { sid, cookie: forever });
  }
  await other.set("a", { sid: "a", cookie: forever });
  assert.deepEqual((await store.all()).map((item) => item.sid).sort(), ["a", "b", "c"]);
  await store.clear();
  assert.deepEqual([await store.length(), await other.length()], [0, 1]);
  assert.equal(await store.get("a"), undefined);
});

test("Neither the session id nor the token can be read from what the authority has.", async () => {
  const store = newStore();
  await store.set("the-session-id", { cookie: forever });
  const { sessions } = await client.call("ListSessions", { filter: { labels: { "express-store": store.name } } });
  assert.equal(sessions.length, 1);
  const { data } = await client.call("GetSessionData", { session: { sessionId: sessions[0].sessionId } });
  const text =
    inspect(sessions, { depth: 9 }) +
    Object.values(data)
      .map((bytes) => bytes.toString("latin1"))
      .join();
  assert.ok(!text.includes("the-session-id"));
  const found = text.match(/[\w-]{70}/g) ?? [];
  for (const token of found) {
    const { verdict } = await client.call("ValidateSession", { token });
    assert.notEqual(verdict, "VERDICT_VALID");
  }
  assert.ok(!inspect(store.store, { depth: 9, showHidden: true }).match(/[\w-]{70}/));
});

test("Reading a session counts as activity.", async () => {
  const store = newStore();
  await store.set("sid", { cookie: forever });
  const lastActive = async () => {
    const { sessions } = await client.call("ListSessions", { filter: { labels: { "express-store": store.name } } });
    return sessions[0].lastActiveTime.seconds * 1_000 + sessions[0].lastActiveTime.nanos / 1e6;
  };
  const opened = await lastActive();
  do {
    await store.get("sid");
  } while ((await lastActive()) <= opened);
});

test("express-session works on the store: cart, regenerated id at login, logout.", async () => {
  await withApp(new SessionStore({ target: authority.target, timeout: 30_000, name: "app" }), {}, async (site) => {
    const browser = new Browser(site);
    await browser.post("/cart", { item: "teapot" });
    await browser.post("/cart", { item: "cup" });
    const guest = browser.cookie;
    const before = (await browser.get("/")).json;
    assert.deepEqual(before.cart, ["teapot", "cup"]);
    assert.equal((await browser.post("/login")).status, 200);
    assert.notEqual(browser.cookie, guest);
    assert.notEqual((await browser.send("GET", "/", { cookie: guest })).json.id, before.id);
    const member = browser.cookie;
    assert.equal((await browser.post("/logout")).status, 200);
    assert.notDeepEqual((await browser.send("GET", "/", { cookie: member })).json.cart, ["teapot", "cup"]);
  });
});

test("A request that was under way when its session was destroyed does not save it again.", async () => {
  const store = new SessionStore({ target: authority.target, timeout: 30_000, name: "race" });
  await withApp(store, { resave: true }, async (site) => {
    let arrived;
    let goOn;
    site.app.post("/slow", async (req, res) => {
      arrived();
      await new Promise((resolve) => (goOn = resolve));
      req.session.cart = ["revived"];
      res.end();
    });
    const browser = new Browser(site);
    await browser.post("/cart", { item: "teapot" });
    const cookie = browser.cookie;
    const there = new Promise((resolve) => (arrived = resolve));
    const slow = new Browser(site).send("POST", "/slow", { cookie });
    await there;
    await browser.post("/logout");
    goOn();
    assert.equal((await slow).status, 200);
    assert.deepEqual((await browser.send("GET", "/", { cookie })).json.cart, []);
    assert.equal(await promisify(store.length).call(store), 0);
  });
});

test("During an outage every call fails with 503, and express-session passes the error on.", async () => {
  const store = newStore();
  await store.set("sid", { cookie: forever });
  const site = new SessionStore({ target: authority.target, timeout: 30_000, name: "outage" });
  await withApp(site, {}, async (own) => {
    const browser = new Browser(own);
    await browser.post("/cart", { item: "teapot" });
    await authority.kill();
    try {
      for (const call of [
        () => store.get("sid"),
        () => store.set("sid", { cookie: forever }),
        () => store.destroy("x"),
        store.all,
        store.length,
        store.clear,
      ]) {
        await assert.rejects(call, { status: 503, code: "unavailable" });
      }
      const answer = await browser.get("/");
      assert.deepEqual([answer.status, answer.headers["retry-after"]], [503, "2"]);
    } finally {
      await authority.start();
    }
  });
});

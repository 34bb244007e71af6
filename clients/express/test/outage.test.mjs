// The authority is gone, or does not answer.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";

import { InterceptingCall } from "@grpc/grpc-js";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser, openSite } from "./support/site.mjs";

const require = createRequire(import.meta.url);
const { Authority } = require("../dist/authority.js");
const { Circuit } = require("../dist/circuit.js");

let authority;
before(async () => {
  authority = await AuthorityProcess.start();
});
after(() => authority?.stop());

/** Repeat a request until the authority is back. */
async function eventually(send, status) {
  for (;;) {
    const answer = await send();
    if (answer.status === status) {
      return answer;
    }
  }
}

test("During an outage pages and APIs get 503, public pages a guest's answer, and nobody is logged out.", async () => {
  const routes = (app) => {
    app.get("/public", async (req, res) => res.send(`guest ${req.sessiond.subject} ${await req.sessiond.csrfToken()}`));
    app.post("/public", (req, res) => {
      req.session.a = 1;
      res.send("saved");
    });
    app.post("/public/search", (req, res) => res.send("found"));
  };
  const site = await openSite(authority.target, { routes, options: { publicPaths: ["/public", "/public/*"] } });
  try {
    const browser = new Browser(site);
    await browser.login("otto");
    const csrf_token = (await browser.get("/form")).text;
    await authority.kill();
    for (const send of [browser.get, browser.page].map((method) => method.bind(browser))) {
      const answer = await send("/account");
      assert.deepEqual([answer.status, answer.headers["retry-after"], answer.setCookie], [503, "2", []]);
    }
    assert.deepEqual((await browser.get("/")).json, { error: "unavailable" });
    assert.equal((await browser.get("/public")).text, "guest undefined ");
    assert.equal((await new Browser(site).get("/")).json.subject, null); // without a cookie there is no question
    const write = await browser.post("/public", { csrf_token });
    assert.deepEqual([write.status, write.setCookie], [503, []]);
    assert.equal((await browser.post("/public/search", { csrf_token })).text, "found");
    assert.equal((await browser.send("POST", "/public/search", { fields: { csrf_token } })).status, 503);
    assert.equal((await new Browser(site).post("/login", { user: "otto" })).status, 503);
    await authority.start();
    assert.equal((await eventually(() => browser.get("/account"), 200)).text, "account of otto");
  } finally {
    await site.close();
  }
});

test("A site that starts during an outage serves public pages, and later everything.", async () => {
  await authority.kill();
  const site = await openSite(authority.target, { options: { publicPaths: [/^\/$/] } });
  try {
    const browser = new Browser(site);
    assert.equal((await browser.get("/")).json.subject, null);
    assert.equal((await browser.get("/form")).status, 503);
    await authority.start();
    await eventually(() => browser.get("/form"), 200);
  } finally {
    await site.close();
  }
});

test("An authority that does not answer is an outage too, until it answers.", async () => {
  const site = await openSite(authority.target, { options: { timeout: 400 } });
  const browser = new Browser(site);
  try {
    await eventually(() => browser.login("fred"), 303);
    authority.freeze();
    assert.equal((await browser.get("/account")).status, 503);
    const answers = await Promise.all(Array.from({ length: 20 }, () => browser.get("/account")));
    assert.deepEqual(new Set(answers.map((answer) => answer.status)), new Set([503]));
    assert.match(site.seen.errors.at(-1).message, /DEADLINE_EXCEEDED/);
  } finally {
    authority.thaw();
  }
  await eventually(() => browser.get("/account"), 200);
  await site.close();
});

test("During an outage calls are not sent, but for one at a time.", async () => {
  let sent = 0;
  const count = (metadata, listener, next) => {
    sent += 1;
    next(metadata, listener);
  };
  const counting = (options, next) => new InterceptingCall(next(options), { start: count });
  const client = new Authority({ target: "127.0.0.1:1", channelOptions: { interceptors: [counting] } });
  const calls = () => Promise.allSettled(Array.from({ length: 50 }, () => client.call("GetAuthority", {})));
  for (const { reason } of await calls()) {
    assert.deepEqual([reason.status, reason.code], [503, "unavailable"]);
  }
  assert.ok(sent >= 50); // nobody knew yet
  sent = 0;
  await calls();
  assert.ok(sent <= 2, `${sent} calls were sent`); // a probe, and its repetition
  client.close();
});

test("While the circuit is open one call at a time is a probe, and the first answer closes it.", () => {
  const circuit = new Circuit();
  const [a, b, c] = [{}, {}, {}];
  assert.equal(circuit.admit(a, 0), "");
  circuit.refused(a, "refused", 0);
  assert.equal(circuit.admit(b, 99), "refused");
  assert.equal(circuit.admit(b, 100), "");
  assert.equal(circuit.admit(c, 100), "refused");
  circuit.refused(b, "refused again", 150);
  assert.equal(circuit.admit(c, 249), "refused again");
  assert.equal(circuit.admit(c, 250), "");
  circuit.reached(260);
  assert.equal(circuit.admit(a, 260), "");
  assert.equal(circuit.admit(b, 260), "");
});

test("A call that is slow by itself is no outage, if another one was answered meanwhile.", () => {
  const circuit = new Circuit();
  const [slow, probe] = [{}, {}];
  circuit.reached(10);
  circuit.timedOut(slow, "too late", 5, 20);
  assert.equal(circuit.admit({}, 20), "");
  circuit.timedOut(slow, "too late", 11, 20);
  assert.equal(circuit.admit(probe, 120), "");
  circuit.leave(probe);
  assert.equal(circuit.admit({}, 120), "");
});

// What attackers, impatient users and odd browsers send, and what must not follow from it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";
import { inspect } from "node:util";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser, openSite, requires, SessiondError } from "./support/site.mjs";

const { Authority } = createRequire(import.meta.url)("../dist/authority.js");

let authority;
let site;
before(async () => {
  authority = await AuthorityProcess.start();
  site = await openSite(authority.target);
});
after(async () => {
  await site?.close();
  await authority?.stop();
});

async function withSite(setup, use) {
  const own = await openSite(authority.target, setup);
  try {
    await use(own);
  } finally {
    await own.close();
  }
}

/** A point that requests wait at until `count` of them are there. */
function barrier(count) {
  let release;
  const open = new Promise((resolve) => (release = resolve));
  return () => {
    count -= 1;
    if (count === 0) {
      release();
    }
    return open;
  };
}

test("A request without the CSRF token, or with a wrong one, gets 403 and never the login page.", async () => {
  const browser = new Browser(site);
  await browser.login("carl");
  for (const fields of [{}, { csrf_token: "" }, { csrf_token: "wrong" }, { "csrf_token[a]": "x" }]) {
    for (const Accept of ["text/html", "application/json"]) {
      const answer = await browser.post("/cart", { item: "bomb", ...fields }, { Accept });
      assert.deepEqual([answer.status, answer.location, answer.setCookie], [403, undefined, []]);
    }
  }
  assert.deepEqual((await browser.post("/cart", {}, { Accept: "application/json" })).json, { error: "csrf_failed" });
  assert.deepEqual((await browser.get("/")).json.cart, []);
});

test("The CSRF token counts in the header and in the form, and only that of this session.", async () => {
  const [mallory, victim] = [new Browser(site), new Browser(site)];
  await mallory.login("mallory");
  await victim.login("victor");
  const own = (await victim.get("/form")).text;
  const others = (await mallory.get("/form")).text;
  assert.equal((await victim.post("/cart", { item: "a" }, { "X-CSRF-Token": others })).status, 403);
  assert.equal((await victim.post("/cart", { item: "a" }, { "X-CSRF-Token": own })).status, 303);
  assert.equal((await victim.post("/cart", { item: "b", csrf_token: own })).status, 303);
});

test("A request from another site is refused even with the right token, by either header.", async () => {
  const browser = new Browser(site);
  await browser.login("olga");
  const csrf_token = (await browser.get("/form")).text;
  const host = `127.0.0.1:${site.port}`;
  const refused = [
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { "Sec-Fetch-Site": "same-origin, cross-site" },
    { "Sec-Fetch-Site": "cross-site", Origin: `http://${host}` },
    { Origin: "https://evil.example" },
    { Origin: "null" },
    { Origin: "" },
    { Origin: `http://${host}.evil.example` },
    { Origin: `http://${host}@evil.example` },
    { Origin: "http://127.0.0.1:1" },
  ];
  for (const headers of refused) {
    const answer = await browser.send("POST", "/cart", { fields: { csrf_token, item: "x" }, headers });
    assert.equal(answer.status, 403, JSON.stringify(headers));
  }
  for (const headers of [
    {},
    { "Sec-Fetch-Site": "none" },
    { Origin: `http://${host}` },
    { Origin: `https://${host}` },
  ]) {
    const answer = await browser.send("POST", "/cart", { fields: { csrf_token, item: "x" }, headers });
    assert.equal(answer.status, 303, JSON.stringify(headers));
  }
});

test("A login from another site is refused, although there is no session yet.", async () => {
  const browser = new Browser(site);
  const answer = await browser.post("/login", { user: "mallory" }, { "Sec-Fetch-Site": "cross-site" });
  assert.deepEqual([answer.status, answer.setCookie], [403, []]);
  assert.equal((await browser.send("POST", "/login", { fields: { user: "script" } })).status, 303);
});

test("A configured origin may send requests; an exempt path needs neither origin nor token.", async () => {
  const routes = (app) => {
    app.post("/hook", (req, res) => res.send("hook"));
    app.post("/hook/other", (req, res) => res.send("other"));
    app.post("/upload", requires({ csrf: true }), (req, res) => res.send("upload"));
  };
  const options = { trustedOrigins: ["https://checkout.example"], csrfExempt: ["/hook", "/upload"] };
  await withSite({ routes, options }, async (own) => {
    const browser = new Browser(own);
    await browser.login("tina");
    const csrf_token = (await browser.get("/form")).text;
    const from = { Origin: "https://checkout.example", "Sec-Fetch-Site": "cross-site" };
    assert.equal((await browser.post("/cart", { csrf_token, item: "a" }, from)).status, 303);
    assert.equal((await browser.post("/cart", { item: "a" }, from)).status, 403);
    const evil = { "Sec-Fetch-Site": "cross-site" };
    assert.equal((await browser.post("/hook", {}, evil)).status, 200);
    assert.equal((await browser.post("/hook/other", {}, evil)).status, 403);
    assert.equal((await browser.post("/upload", { csrf_token }, evil)).status, 403);
    assert.equal((await browser.post("/upload", {})).status, 403);
    assert.equal((await browser.post("/upload", { csrf_token })).status, 200);
  });
});

test("A session that was planted before the login is worthless after it, and so is its CSRF token.", async () => {
  const [attacker, victim] = [new Browser(site), new Browser(site)];
  await attacker.post("/cart", { item: "planted" });
  const planted = attacker.cookie;
  const csrf_token = (await attacker.get("/form")).text;
  victim.cookies = new Map(attacker.cookies);
  await victim.post("/login", { user: "viola", csrf_token });
  assert.equal((await victim.get("/")).json.subject, "viola");
  assert.equal((await attacker.send("GET", "/", { cookie: planted })).json.subject, null);
  assert.equal((await attacker.send("GET", "/account", { cookie: planted })).status, 401);
  assert.equal((await victim.post("/cart", { item: "x", csrf_token })).status, 403);
});

test("A request that began in a planted guest session cannot write into the victim's session.", async () => {
  let arrived;
  let goOn;
  const routes = (app) =>
    app.post("/plant", async (req, res) => {
      req.session.cart = ["poison"];
      arrived();
      await new Promise((resolve) => (goOn = resolve));
      res.end("done");
    });
  await withSite({ routes }, async (own) => {
    const [attacker, victim] = [new Browser(own), new Browser(own)];
    await attacker.post("/cart", { item: "tea" });
    victim.cookies = new Map(attacker.cookies);
    const csrf_token = (await attacker.get("/form")).text;
    const there = new Promise((resolve) => (arrived = resolve));
    const planting = attacker.post("/plant", { csrf_token });
    await there;
    await victim.login("vince");
    goOn();
    assert.equal((await planting).status, 401);
    assert.deepEqual((await victim.get("/")).json, { subject: "vince", cart: ["tea"] });
  });
});

test("If someone else logs in with a user's session, nothing of it stays.", async () => {
  const routes = (app) =>
    app.post("/switch", async (req, res) => {
      req.session.copied = req.session.cart;
      const held = req.session;
      await req.sessiond.login("second");
      held.own = "new";
      res.json(req.session);
    });
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    await browser.login("first");
    await browser.submit("/cart", { item: "secret" });
    const old = browser.cookie;
    assert.deepEqual((await browser.submit("/switch")).json, { own: "new" });
    assert.deepEqual((await browser.get("/")).json, { subject: "second", cart: [] });
    assert.equal((await browser.send("GET", "/account", { cookie: old })).status, 401);
  });
});

test("If the session ends before a login in the same request, only what the request itself wrote goes on.", async () => {
  const routes = (app) =>
    app.post("/ended", async (req, res) => {
      req.session.own = "new";
      const client = new Authority({ target: authority.target, timeout: 30_000 });
      await client.call("RevokeSession", { session: { sessionId: req.sessiond.sessionId } });
      client.close();
      await req.sessiond.login("erna");
      res.json(req.session);
    });
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    await browser.post("/cart", { item: "teapot" });
    assert.deepEqual((await browser.submit("/ended")).json, { own: "new" });
    assert.deepEqual((await browser.get("/")).json, { subject: "erna", cart: [] });
  });
});

test("After the login only a path of this site is followed.", async () => {
  const bad = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "",
    "javascript:alert(1)",
    "/ok\r\nSet-Cookie: a=b",
    " //evil.example",
    "/.//evil.example",
    "/a/..//evil.example",
  ];
  for (const next of bad) {
    const answer = await new Browser(site).login("nadia", { next });
    assert.deepEqual([answer.status, answer.location], [303, "/"], next);
  }
  const answer = await new Browser(site).login("nadia", { next: "/account?tab=1&b=%2F" });
  assert.equal(answer.location, "/account?tab=1&b=%2F");
});

test("No header of a response has a line that a client wrote.", async () => {
  const browser = new Browser(site);
  const page = await browser.page("/account?x=%0d%0aSet-Cookie:%20a=b&next=//evil");
  assert.equal(page.location, "/login?next=%2Faccount%3Fx%3D%250d%250aSet-Cookie%3A%2520a%3Db%26next%3D%2F%2Fevil");
  assert.deepEqual(page.setCookie, []);
  const login = await browser.login("a\r\nSet-Cookie: b=c");
  assert.equal(login.status, 303);
  assert.deepEqual(
    login.setCookie.map((text) => text.split("=")[0]),
    ["__Host-id"],
  );
});

test("Two session cookies are no session: unsafe requests and pages that need a login get 400.", async () => {
  const [victim, attacker] = [new Browser(site), new Browser(site)];
  await victim.login("vera");
  await attacker.login("adam");
  for (const separator of ["; ", ", "]) {
    for (const cookie of [
      [attacker.cookie, victim.cookie],
      [victim.cookie, attacker.cookie],
    ].map((two) => two.join(separator))) {
      assert.equal((await victim.send("GET", "/", { cookie })).json.subject, null);
      const account = await victim.send("GET", "/account", { cookie, headers: { Accept: "text/html" } });
      assert.deepEqual([account.status, account.setCookie], [400, []]);
      const post = await victim.send("POST", "/cart", {
        cookie,
        fields: { item: "x" },
        headers: { "Sec-Fetch-Site": "same-origin" },
      });
      assert.deepEqual([post.status, post.json.error], [400, "ambiguous_cookies"]);
      const login = await victim.send("POST", "/login", {
        cookie,
        fields: { user: "eve" },
        headers: { "Sec-Fetch-Site": "same-origin" },
      });
      assert.deepEqual([login.status, login.setCookie], [400, []]);
      assert.equal((await victim.send("GET", "/form", { cookie })).text, "");
    }
  }
});

test("No header makes the middleware throw: nonsense is a guest.", async () => {
  const nonsense = [
    "=",
    ";;;",
    "__Host-id",
    "__Host-id=",
    "__Host-id=%",
    '__Host-id="',
    "__Host-id=\u00ff\u0080",
    "a=b; c",
    `__Host-id=${"x".repeat(9_000)}`,
    "__Host-id==; __proto__=1",
  ];
  for (const cookie of nonsense) {
    const headers = {
      "X-Forwarded-For": "\u00ff,,",
      Forwarded: 'for="',
      "User-Agent": "\u00ff".repeat(2_000),
      Origin: "%",
    };
    const answer = await new Browser(site).send("GET", "/", { cookie, headers });
    assert.deepEqual([answer.status, answer.json.subject], [200, null], cookie);
  }
});

test("Two clicks on the login button end with one session, whose cookie both responses set.", async () => {
  const meet = barrier(2);
  const routes = (app) =>
    app.post("/double", async (req, res) => {
      await meet();
      await req.sessiond.login("dina");
      res.end();
    });
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    const csrf_token = (await browser.get("/form")).text;
    const cookie = browser.cookie;
    const click = () =>
      browser.send("POST", "/double", { fields: { csrf_token }, cookie, headers: { "Sec-Fetch-Site": "same-origin" } });
    const [first, second] = await Promise.all([click(), click()]);
    assert.deepEqual([first.status, first.setCookie], [second.status, second.setCookie]);
    const late = await click();
    assert.deepEqual([late.status, late.setCookie], [200, first.setCookie]);
    assert.equal((await browser.get("/devices")).json.length, 1);
  });
});

test("A second click on the logout button is harmless, and deletes no cookie of a login in between.", async () => {
  const browser = new Browser(site);
  await browser.login("leo");
  const csrf_token = (await browser.get("/form")).text;
  const old = browser.cookie;
  const click = () =>
    new Browser(site).send("POST", "/logout", {
      fields: { csrf_token },
      cookie: old,
      headers: { "Sec-Fetch-Site": "same-origin" },
    });
  assert.equal((await click()).status, 303);
  assert.equal((await click()).status, 303);
  browser.cookies.clear();
  await browser.login("leo");
  const inFlight = await new Browser(site).send("GET", "/", { cookie: old });
  assert.deepEqual([inFlight.json.subject, inFlight.setCookie], [null, []]);
  assert.equal((await browser.get("/account")).status, 200);
});

test("A session that ended a moment ago opens no other in its place, and logging in again works.", async () => {
  const [here, there] = [new Browser(site), new Browser(site)];
  await here.login("rosa");
  await there.login("rosa");
  const [device] = (await there.get("/devices")).json.filter((item) => !item.current);
  await there.submit("/devices/end", { id: device.id });
  const form = await here.get("/form");
  assert.deepEqual([form.text, form.setCookie], ["", []]);
  const cart = await here.post("/cart", { item: "x" });
  assert.deepEqual([cart.status, cart.setCookie], [401, []]);
  assert.equal((await here.login("rosa")).status, 303);
  assert.equal((await here.get("/")).json.subject, "rosa");
});

test("Cookies of a validation are dropped if the response starts more than five seconds after it.", async () => {
  let time = 0;
  const routes = (app) => {
    app.get("/after", (req, res) => {
      time += Number(req.query.ms);
      res.end();
    });
    app.post("/login-after", async (req, res) => {
      await req.sessiond.login("lars");
      time += 60_000;
      res.end();
    });
  };
  await withSite({ routes, now: () => time }, async (own) => {
    const forged = { cookie: `__Host-id=${"A".repeat(70)}` };
    const browser = new Browser(own);
    assert.equal((await browser.send("GET", "/after?ms=5000", forged)).setCookie.length, 1);
    const late = await browser.send("GET", "/after?ms=5001", forged);
    assert.deepEqual([late.status, late.setCookie], [200, []]);
    assert.equal((await browser.post("/login-after")).setCookie.length, 1);
  });
});

test("A late answer to an old token does not undo the cookie of a newer one.", async () => {
  await withSite({ options: { application: "short" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("renate");
    const old = browser.cookie;
    let renewed;
    do {
      renewed = (await browser.get("/")).setCookie;
    } while (renewed.length === 0);
    assert.notEqual(browser.cookie, old);
    const again = await new Browser(own).send("GET", "/", { cookie: old });
    assert.deepEqual([again.json.subject, again.setCookie], ["renate", renewed]);
  });
});

test("A user's request that outlasts the renewal of its token writes its data, without an alarm.", async () => {
  let arrived;
  let goOn;
  const routes = (app) =>
    app.post("/upload", async (req, res) => {
      req.session.upload = "done";
      arrived();
      await new Promise((resolve) => (goOn = resolve));
      res.json(req.session);
    });
  await withSite({ routes, options: { application: "short" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("ulla");
    const csrf_token = (await browser.get("/form")).text;
    const old = browser.cookie;
    const there = new Promise((resolve) => (arrived = resolve));
    const upload = new Browser(own).send("POST", "/upload", { cookie: old, fields: { csrf_token } });
    await there;
    const client = new Authority({ target: authority.target, timeout: 30_000, application: "short" });
    const question = {
      token: old.split("=")[1],
      client: { ipAddress: "127.0.0.1", userAgent: browser.headers["User-Agent"] },
    };
    do {
      await browser.get("/"); // the browser goes on with the new token
    } while ((await client.call("ValidateSession", question)).verdict !== "VERDICT_REPLAYED");
    client.close();
    goOn();
    assert.deepEqual((await upload).json, { upload: "done" });
    assert.equal((await browser.get("/")).json.subject, "ulla");
  });
});

test("A login after a renewal sends the cookies of the login only.", async () => {
  await withSite({ options: { application: "short" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("rita");
    const csrf_token = (await browser.get("/form")).text;
    const old = browser.cookie;
    while ((await browser.send("GET", "/", { cookie: old })).setCookie.length === 0); // renewal is due now
    const answer = await browser.send("POST", "/login", {
      cookie: old,
      fields: { user: "rita", csrf_token },
      headers: { "Sec-Fetch-Site": "same-origin" },
    });
    assert.deepEqual([answer.status, answer.setCookie.length], [303, 1]);
    assert.equal((await browser.get("/")).json.subject, "rita");
  });
});

test("A user whose session is suspicious is asked to authenticate again, and gets in by doing so.", async () => {
  await withSite({ options: { application: "strict" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("sue");
    browser.headers["User-Agent"] = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36";
    const api = await browser.get("/account");
    assert.deepEqual([api.status, api.json], [401, { error: "reauthentication_required" }]);
    assert.equal((await browser.get("/")).json.subject, null);
    const silent = await browser.send("POST", "/login", { fields: { user: "sue" } });
    assert.equal(silent.status, 403);
    assert.equal((await browser.login("sue")).status, 303);
    assert.equal((await browser.get("/account")).text, "account of sue");
  });
});

test("No token appears in an inspection, in JSON or in an error.", async () => {
  const shown = [];
  const routes = (app) =>
    app.post("/show", async (req, res) => {
      await req.sessiond.login("tara");
      const csrf = await req.sessiond.csrfToken();
      for (const item of [req.sessiond, { app }, req.session]) {
        shown.push(inspect(item, { depth: 20, showHidden: true }), JSON.stringify(item, cycleless()));
      }
      shown.push(String(req.sessiond), inspect(Object.getOwnPropertyDescriptors(req.sessiond), { depth: 20 }));
      try {
        await req.sessiond.login("x".repeat(300));
      } catch (error) {
        assert.ok(error instanceof SessiondError);
        shown.push(inspect(error, { depth: 20, showHidden: true }), error.stack, JSON.stringify(error));
      }
      res.json({ csrf });
    });
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    const form = (await browser.get("/form")).text;
    const guest = browser.cookies.get("__Host-id");
    const { csrf } = (await browser.post("/show", { csrf_token: form })).json;
    const secrets = [guest, browser.cookies.get("__Host-id"), csrf];
    assert.equal(new Set(secrets.map((secret) => secret.length > 20)).size, 1);
    for (const secret of secrets) {
      assert.equal(shown.filter((text) => text.includes(secret)).length, 0);
    }
    assert.ok(shown.some((text) => text.includes("tara"))); // the control: what is not secret is shown
  });
});

function cycleless() {
  const seen = new Set();
  return (_key, value) => {
    if (typeof value === "object" && value !== null) {
      if (seen.has(value)) {
        return undefined;
      }
      seen.add(value);
    }
    return value;
  };
}

/** A browser that logged in and has a newer token by now, and the cookie from before, which is a copy of an old token. */
async function browserWithCopy(own, user) {
  const browser = new Browser(own);
  await browser.login(user);
  const old = browser.cookie;
  const client = new Authority({ target: authority.target, timeout: 30_000, application: "short" });
  const question = {
    token: old.split("=")[1],
    client: { ipAddress: "127.0.0.1", userAgent: browser.headers["User-Agent"] },
  };
  let answer;
  do {
    await browser.get("/");
    answer = await client.call("ValidateSession", question);
  } while (answer.verdict !== "VERDICT_REPLAYED");
  client.close();
  assert.equal(answer.nextStep, "NEXT_STEP_KEEP_TOKEN");
  return { browser, old };
}

const withLoginPage = (app) => app.get("/login", async (req, res) => res.send(await req.sessiond.csrfToken()));
const short = { options: { application: "short" }, routes: withLoginPage };

test("A late answer to a copy of an old token deletes no cookie, and the browser stays logged in.", async () => {
  await withSite(short, async (own) => {
    const { browser, old } = await browserWithCopy(own, "carla");
    const late = { cookie: old, headers: { "Sec-Fetch-Site": "same-origin" } };
    const page = await browser.send("GET", "/", late);
    assert.deepEqual([page.json.subject, page.setCookie], [null, []]);
    assert.deepEqual((await browser.send("GET", "/form", late)).setCookie, []);
    const upload = await browser.send("POST", "/cart", { ...late, fields: { item: "late" } });
    assert.deepEqual([upload.status, upload.setCookie], [401, []]);
    assert.equal((await browser.get("/account")).status, 200);
  });
});

test("A device that has only a copy of an old token gets a new cookie on the login page, and can log in.", async () => {
  await withSite(short, async (own) => {
    const { browser, old } = await browserWithCopy(own, "doris");
    const [first, second] = [new Browser(own), new Browser(own)];
    for (const device of [first, second]) {
      device.cookies = new Map([old.split("=")]);
      for (let visit = 0; visit < 3; visit += 1) {
        const denied = await device.page("/account");
        assert.deepEqual([denied.status, denied.location, denied.setCookie], [303, "/login?next=%2Faccount", []]);
      }
    }
    const csrf_token = (await first.page("/login")).text;
    assert.notEqual(csrf_token, "");
    assert.notEqual(first.cookie, old);
    assert.equal((await first.post("/login", { user: "doris", csrf_token })).status, 303);
    // A login page elsewhere has no token for its form.
    assert.equal((await second.get("/form")).text, "");
    assert.equal((await second.post("/login", { user: "doris" })).status, 303);
    for (const one of [browser, first, second]) {
      assert.equal((await one.get("/account")).text, "account of doris");
    }
  });
});

test("The answer to a form deletes no dead cookie; the next page does.", async () => {
  const browser = new Browser(site);
  browser.cookies = new Map([["__Host-id", "A".repeat(70)]]);
  const form = await browser.post("/cart", { item: "x" });
  assert.deepEqual(
    form.setCookie.filter((text) => /Max-Age=0/i.test(text)),
    [],
  );
  const other = new Browser(site);
  other.cookies = new Map([["__Host-id", "A".repeat(70)]]);
  assert.match((await other.get("/")).setCookie[0], /Max-Age=0/i);
});

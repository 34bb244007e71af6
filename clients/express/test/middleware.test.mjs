// The middleware before a real authority: sessions, logins, pages and APIs.
import assert from "node:assert/strict";
import { request } from "node:http";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { gunzipSync } from "node:zlib";

import compression from "compression";
import express4 from "express4";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser, openSite, requires, SessiondError } from "./support/site.mjs";

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

/** A site of one test, with routes or options of its own. */
async function withSite(setup, use) {
  const own = await openSite(authority.target, setup);
  try {
    await use(own);
  } finally {
    await own.close();
  }
}

test("A visitor without data gets no cookie and no session.", async () => {
  const answer = await new Browser(site).get("/");
  assert.deepEqual(answer.json, { subject: null, cart: [] });
  assert.deepEqual(answer.setCookie, []);
  assert.equal(answer.headers.vary, "Cookie");
});

test("A response that does not depend on the session does not vary by the cookie.", async () => {
  const routes = (app) => app.get("/about", (req, res) => res.send("about"));
  await withSite({ routes }, async (own) => {
    assert.equal((await new Browser(own).get("/about")).headers.vary, undefined);
  });
});

test("A guest's cart is kept from its first item on, and survives the login.", async () => {
  const browser = new Browser(site);
  assert.equal((await browser.post("/cart", { item: "teapot" })).status, 303);
  assert.deepEqual((await browser.get("/")).json, { subject: null, cart: ["teapot"] });
  const guest = browser.cookie;
  assert.equal((await browser.login("alice")).status, 303);
  assert.notEqual(browser.cookie, guest);
  assert.deepEqual((await browser.get("/")).json, { subject: "alice", cart: ["teapot"] });
});

test("A cart that begins on the page of a form does not end with the login page's session.", async () => {
  const browser = new Browser(site);
  await browser.submit("/cart", { item: "cup" });
  const routes = (app) =>
    app.get("/session", async (req, res) => res.json({ id: req.sessiond.sessionId, data: { ...req.session } }));
  await withSite({ routes }, async (own) => {
    const shown = (await new Browser(own).send("GET", "/session", { cookie: browser.cookie })).json;
    assert.deepEqual(shown.data, { cart: ["cup"] });
    const { Authority } = await import("../dist/authority.js").then((module) => module.default);
    const client = new Authority({ target: authority.target });
    const { sessions } = await client.call("ListSessions", { filter: { subject: "" } });
    client.close();
    assert.equal(sessions.find((session) => session.sessionId === shown.id).loginExpireTime, null);
  });
});

test("A session that is only read is never written, and a change inside a value is noticed.", async () => {
  const routes = (app) => {
    app.get("/read", (req, res) => res.send(String(Object.keys(req.session).length)));
    app.post("/nested", (req, res) => {
      req.session.cart[0].count += 1;
      res.json(req.session);
    });
    app.post("/remove", (req, res) => {
      delete req.session.cart;
      req.session.note = undefined;
      res.end();
    });
    app.post("/fill", (req, res) => {
      req.session = { cart: [{ count: 1 }], note: "n" };
      res.end();
    });
    app.get("/version", async (req, res) => {
      const client = new (await import("../dist/authority.js")).default.Authority({ target: authority.target });
      const { version } = await client.call("GetSessionData", { session: { sessionId: req.sessiond.sessionId } });
      client.close();
      res.send(String(version));
    });
  };
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    await browser.login("vera");
    await browser.submit("/fill");
    const version = (await browser.get("/version")).text;
    await browser.get("/read");
    assert.equal((await browser.get("/version")).text, version);
    await browser.submit("/nested");
    assert.deepEqual((await browser.get("/")).json.cart, [{ count: 2 }]);
    assert.notEqual((await browser.get("/version")).text, version);
    await browser.submit("/remove");
    assert.equal((await browser.get("/read")).text, "0");
  });
});

test("Data is written before the client sees the headers, also in a response in parts.", async () => {
  let goOn;
  const routes = (app) =>
    app.post("/slow", async (req, res) => {
      req.session.cart = ["late"];
      res.setHeader("X-Step", "1");
      res.write("first ");
      assert.equal(res.headersSent, true);
      assert.throws(() => res.setHeader("X-Step", "2"), { code: "ERR_HTTP_HEADERS_SENT" });
      await new Promise((resolve) => (goOn = resolve));
      res.write("second ");
      res.end("third");
    });
  await withSite({ routes }, async (own) => {
    const response = await new Promise((resolve, reject) => {
      const outgoing = request({ port: own.port, host: "127.0.0.1", method: "POST", path: "/slow" }, resolve);
      outgoing.on("error", reject).end();
    });
    assert.equal(response.headers["x-step"], "1");
    const cookie = response.headers["set-cookie"][0].split(";")[0];
    assert.deepEqual((await new Browser(own).send("GET", "/", { cookie })).json.cart, ["late"]);
    goOn();
    let text = "";
    for await (const chunk of response) {
      text += chunk;
    }
    assert.equal(text, "first second third");
  });
});

test("A stream that is piped into a response goes on after the data was written.", async () => {
  const parts = Array.from({ length: 200 }, (_, index) => Buffer.alloc(4_096, index));
  const routes = (app) =>
    app.post("/file", (req, res) => {
      req.session.downloads = 1;
      Readable.from(parts).pipe(res);
    });
  await withSite({ routes }, async (own) => {
    assert.equal((await new Browser(own).post("/file")).text, Buffer.concat(parts).toString());
  });
});

test("Compression works before and after the middleware, with a response in parts.", async () => {
  const parts = Array.from({ length: 50 }, (_, index) => `part ${index} `.repeat(2_000));
  const answer = (req, res) => {
    req.session.visits = (req.session.visits ?? 0) + 1;
    res.type("text/plain");
    Readable.from(parts).pipe(res);
  };
  const around = { inside: (app) => app.post("/parts", compression(), answer) };
  around.outside = (app) => app.post("/parts", answer);
  for (const [place, routes] of Object.entries(around)) {
    await withSite({ routes, first: place === "outside" ? [compression()] : [] }, async (own) => {
      const browser = new Browser(own);
      for (let visit = 0; visit < 2; visit++) {
        const csrf = { "X-CSRF-Token": visit === 0 ? "" : (await browser.get("/form")).text };
        const packed = await browser.post("/parts", {}, { "Accept-Encoding": "gzip", ...csrf });
        assert.deepEqual([packed.status, packed.headers["content-encoding"]], [200, "gzip"], place);
        assert.equal(gunzipSync(packed.bytes).toString(), parts.join(""));
      }
      assert.equal(browser.cookies.size, 1);
    });
  }
});

test("An error after the response was sent changes neither its status nor its body.", async () => {
  const routes = (app) => {
    app.post("/late-error", (req, res) => {
      req.session.a = 1;
      res.status(201).send("made");
      throw new Error("too late");
    });
    app.use((error, req, res, next) => (res.headersSent ? undefined : res.status(500).send("error")));
  };
  await withSite({ routes }, async (own) => {
    const answer = await new Browser(own).post("/late-error");
    assert.deepEqual([answer.status, answer.text, answer.setCookie.length], [201, "made", 1]);
  });
});

test("Headers given to writeHead are kept beside the session's cookie.", async () => {
  const routes = (app) => {
    app.post("/object", (req, res) => {
      req.session.a = 1;
      res.writeHead(201, "Made", { "Set-Cookie": "own=1", "X-Own": "yes" }).end("made");
    });
    app.post("/array", (req, res) => {
      req.session.a = 1;
      res.writeHead(200, ["Set-Cookie", "one=1", "Set-Cookie", "two=2"]);
      res.end();
    });
  };
  await withSite({ routes }, async (own) => {
    const made = await new Browser(own).post("/object");
    assert.deepEqual([made.status, made.headers["x-own"], made.text], [201, "yes", "made"]);
    assert.deepEqual(
      made.setCookie.map((text) => text.split("=")[0]),
      ["own", "__Host-id"],
    );
    const listed = await new Browser(own).post("/array");
    assert.deepEqual(
      listed.setCookie.map((text) => text.split("=")[0]),
      ["one", "two", "__Host-id"],
    );
  });
});

test("A value that is not JSON, and too much data, are answered with 500 instead of half a success.", async () => {
  const routes = (app) => {
    app.post("/loop", (req, res) => {
      req.session.loop = {};
      req.session.loop.self = req.session.loop;
      res.send("done");
    });
    app.post("/huge", (req, res) => {
      req.session.huge = "x".repeat(100_000);
      res.set("Content-Type", "text/html").send("done");
    });
  };
  await withSite({ routes }, async (own) => {
    const loop = await new Browser(own).post("/loop");
    assert.deepEqual([loop.status, loop.json, loop.setCookie], [500, { error: "internal" }, []]);
    assert.match(own.seen.errors[0].message, /req\.session\.loop cannot be written as JSON/);
    const browser = new Browser(own);
    await browser.login("hugo");
    const huge = await browser.submit("/huge");
    assert.deepEqual([huge.status, huge.text], [500, '{"error":"internal"}']);
    assert.match(own.seen.errors[1].message, /INVALID_ARGUMENT/);
    assert.equal((await browser.get("/account")).status, 200);
  });
});

test("A page that needs a login redirects to it with the path of a GET, and an API gets 401.", async () => {
  const browser = new Browser(site);
  const page = await browser.page("/account?tab=1");
  assert.deepEqual([page.status, page.location], [303, "/login?next=%2Faccount%3Ftab%3D1"]);
  assert.equal(page.headers["cache-control"], "no-store");
  const api = await browser.get("/account");
  assert.deepEqual(
    [api.status, api.json, api.headers["www-authenticate"]],
    [401, { error: "login_required" }, "Session"],
  );
  const form = await browser.post("/devices/end", {}, { Accept: "text/html" });
  assert.deepEqual([form.status, form.location], [303, "/login"]);
});

test("A route with a level asks for it, and lets the user in after the step-up.", async () => {
  const browser = new Browser(site);
  await browser.login("stella");
  const api = await browser.get("/payment");
  assert.deepEqual([api.status, api.json], [401, { error: "step_up_required", min_level: 2 }]);
  const page = await browser.page("/payment");
  assert.equal(page.location, "/login?next=%2Fpayment&min_level=2");
  await browser.login("stella", { level: 2 });
  assert.equal((await browser.get("/payment")).text, "payment");
});

test("A route with a maximum age asks the authority, and lets in who has just logged in.", async () => {
  const routes = (app) => app.get("/now", requires({ maxAge: 0.001 }), (req, res) => res.send("now"));
  await withSite({ routes }, async (own) => {
    const browser = new Browser(own);
    await browser.login("maxim");
    assert.equal((await browser.get("/password")).text, "password");
    const old = await browser.get("/now");
    assert.deepEqual([old.status, old.json.error], [401, "step_up_required"]);
  });
});

test("The names of the cookies follow the server's configuration, and the one of a subject wins.", async () => {
  await withSite({ options: { application: "named" } }, async (own) => {
    const browser = new Browser(own);
    await browser.post("/cart", { item: "teapot" });
    assert.deepEqual([...browser.cookies.keys()], ["guest"]);
    const guest = browser.cookie;
    await browser.login("nora");
    assert.deepEqual([...browser.cookies.keys()], ["member"]);
    const both = await browser.send("GET", "/", { cookie: `${guest}; ${browser.cookie}` });
    assert.equal(both.json.subject, "nora");
    const unprefixed = await browser.send("GET", "/", { cookie: browser.cookie.replace("member", "__Host-id") });
    assert.equal(unprefixed.json.subject, null);
  });
});

test("An application that is not configured is named in the error, and the request is refused.", async () => {
  await withSite({ options: { application: "shopp" } }, async (own) => {
    assert.equal((await new Browser(own).get("/")).status, 500);
    assert.match(
      own.seen.errors[0].message,
      /unknown application 'shopp' \(configured(?: for this caller)?: .*default, /,
    );
  });
});

test("The devices page names every session, and ends only those of its user.", async () => {
  const [laptop, phone, stranger] = [0, 1, 2].map(() => new Browser(site));
  phone.headers["User-Agent"] =
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Mobile/15E148 Safari/604.1";
  await laptop.login("dora");
  await phone.login("dora");
  await stranger.login("sam");
  const devices = (await laptop.get("/devices")).json;
  assert.equal(devices.length, 2);
  assert.deepEqual(
    devices.map((device) => device.current),
    [false, true],
  );
  assert.deepEqual(
    devices.map((device) => device.type),
    ["phone", "desktop"],
  );
  assert.equal(devices[0].ipAddress, "127.0.0.1");
  const [others] = (await stranger.get("/devices")).json;
  for (const id of [others.id, "nonsense", "0197b5a0-0000-7000-8000-000000000000", ""]) {
    assert.deepEqual((await laptop.submit("/devices/end", { id })).json, { ended: false });
  }
  assert.equal((await stranger.get("/account")).status, 200);
  assert.deepEqual((await laptop.submit("/devices/end", { id: devices[0].id })).json, { ended: true });
  assert.equal((await phone.get("/account")).status, 401);
  assert.deepEqual((await laptop.submit("/devices/end", { id: devices[1].id })).json, { ended: true });
  assert.equal(laptop.cookie, "");
});

test("Logging out everywhere ends every session of the user, or all but this one.", async () => {
  const routes = (app) =>
    app.post("/everywhere", async (req, res) => {
      const ended = await req.sessiond.logoutEverywhere({ keepCurrent: req.body.keep === "yes", wait: true });
      res.json({ ended });
    });
  await withSite({ routes }, async (own) => {
    const browsers = [0, 1, 2].map(() => new Browser(own));
    for (const browser of browsers) {
      await browser.login("eve");
    }
    assert.deepEqual((await browsers[0].submit("/everywhere", { keep: "yes" })).json, { ended: 2 });
    assert.equal((await browsers[1].get("/account")).status, 401);
    assert.equal((await browsers[0].get("/account")).status, 200);
    assert.deepEqual((await browsers[0].submit("/everywhere")).json, { ended: 1 });
    assert.equal(browsers[0].cookie, "");
    assert.equal((await browsers[0].submit("/everywhere")).status, 401);
  });
});

test("A login over the limit of sessions is refused with 409.", async () => {
  await withSite({ options: { application: "single" } }, async (own) => {
    await new Browser(own).login("lia");
    const refused = await new Browser(own).login("lia");
    assert.deepEqual([refused.status, refused.json], [409, { error: "too_many_sessions" }]);
  });
});

test("If the policy asks, the error has the sessions and a ticket, with which the choice is carried out.", async () => {
  const routes = (app) =>
    app.post("/choose", async (req, res) => {
      const password = { level: 1, methods: ["pwd"] };
      try {
        await req.sessiond.login("asa", password);
        res.json({});
      } catch ({ limit }) {
        const { maxSessions, liveCount, sessionIds, ticket } = limit;
        await req.sessiond.login("asa", { ...password, ticket, evict: sessionIds });
        res.json({ maxSessions, liveCount, sessions: sessionIds.length, ticket });
      }
    });
  await withSite({ routes, options: { application: "asking" } }, async (own) => {
    const [first, second] = [new Browser(own), new Browser(own)];
    await first.login("asa");
    const chosen = (await second.post("/choose")).json;
    assert.deepEqual(chosen, { maxSessions: 1, liveCount: 1, sessions: 1, ticket: "<Token>" });
    assert.equal((await second.get("/account")).status, 200);
    assert.equal((await first.get("/account")).status, 401);
  });
});

test("A source that guessed tokens is refused with 429 and Retry-After, whatever the page.", async () => {
  await withSite({ options: { application: "locked" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("gus");
    for (let guess = 0; guess < 3; guess++) {
      await new Browser(own).send("GET", "/", { cookie: `__Host-id=${"A".repeat(70)}` });
    }
    const locked = await browser.page("/");
    assert.equal(locked.status, 429);
    assert.match(locked.headers["retry-after"], /^[1-9]\d*$/);
    assert.deepEqual(locked.setCookie, []);
  });
});

test("A session that ends while a request is under way is not written, and the response says so.", async () => {
  let arrived;
  let goOn;
  const routes = (app) =>
    app.post("/long", async (req, res) => {
      req.session.late = true;
      arrived();
      await new Promise((resolve) => (goOn = resolve));
      res.send("saved");
    });
  await withSite({ routes, options: { application: "short" } }, async (own) => {
    const browser = new Browser(own);
    await browser.login("lena");
    const { text: token } = await browser.get("/form");
    // Until the validation brings a renewed token, which must not be sent after the logout.
    while ((await new Browser(own).send("GET", "/", { cookie: browser.cookie })).setCookie.length === 0);
    const waiting = new Promise((resolve) => (arrived = resolve));
    const long = new Browser(own).send("POST", "/long", {
      fields: { csrf_token: token },
      headers: { "Sec-Fetch-Site": "same-origin" },
      cookie: browser.cookie,
    });
    await waiting;
    await browser.submit("/logout");
    goOn();
    const answer = await long;
    assert.deepEqual([answer.status, answer.json, answer.setCookie], [401, { error: "login_required" }, []]);
  });
});

test("The middleware works under Express 4 too.", async () => {
  await withSite({ framework: express4 }, async (own) => {
    const browser = new Browser(own);
    await browser.post("/cart", { item: "teapot" });
    await browser.login("fiona");
    assert.deepEqual((await browser.get("/")).json, { subject: "fiona", cart: ["teapot"] });
    await browser.submit("/logout");
    assert.equal((await browser.get("/account")).status, 401);
  });
});

test("An error of a call carries status and headers, which Express's own handler uses.", async () => {
  const error = new SessiondError("unavailable", "no authority");
  assert.deepEqual([error.status, error.headers], [503, { "Retry-After": "2" }]);
});

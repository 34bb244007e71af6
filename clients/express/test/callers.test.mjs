// An authority that has callers: which key is sent, where to, and what a refused caller is told.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inspect, promisify } from "node:util";

import * as grpc from "@grpc/grpc-js";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser, openSite, sessiond } from "./support/site.mjs";

const require = createRequire(import.meta.url);
const { Token } = require("@sessiond/express");
const { SessionStore } = require("@sessiond/express/store");
const { Authority } = require("../dist/authority.js");

const WEB = ["issuer:default"];
let authority;
let folder;
let web;
before(async () => {
  delete process.env.SESSIOND_KEY_FILE;
  folder = mkdtempSync(join(tmpdir(), "sessiond-callers-"));
  authority = await AuthorityProcess.start({ callers: false });
  await authority.addCaller("ops", "admin");
  web = await authority.addCaller("web", ...WEB);
});
after(async () => {
  await authority?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const keyOf = (file) => readFileSync(file, "ascii").trim();

/** Run something with the environment variable that names a key file. */
async function withVariable(path, use) {
  process.env.SESSIOND_KEY_FILE = path;
  try {
    return await use();
  } finally {
    delete process.env.SESSIOND_KEY_FILE;
  }
}

/** A user logs in, uses a device list and logs out; returns the statuses and the errors that were reported. */
async function use(options) {
  const site = await openSite(authority.target, { options });
  try {
    const [laptop, phone] = [new Browser(site), new Browser(site)];
    const statuses = [];
    const note = ({ status }) => statuses.push(status);
    note(await laptop.post("/cart", { item: "teapot" }));
    note(await laptop.login("alice"));
    note(await phone.login("alice"));
    const devices = await laptop.get("/devices");
    note(devices);
    if (devices.status === 200) {
      const other = devices.json.find((device) => !device.current);
      note(await laptop.submit("/devices/end", { id: other.id }));
    }
    note(await laptop.get("/password"));
    note(await laptop.submit("/logout"));
    return { statuses, errors: site.seen.errors };
  } finally {
    await site.close();
  }
}

const GOOD = { statuses: [303, 303, 303, 200, 200, 200, 303], errors: [] };

test("With the role issuer a site logs in and out, lists and ends devices, and keeps data.", async () => {
  assert.deepEqual(await use({ keyFile: web }), GOOD);
});

test("The key may be a text, a Token, a file, or a file that SESSIOND_KEY_FILE names.", async () => {
  const ways = [{ key: keyOf(web) }, { key: new Token(keyOf(web)) }, { keyFile: web }];
  for (const options of ways) {
    const client = new Authority({ target: authority.target, timeout: 30_000, ...options });
    assert.equal((await client.call("ValidateSession", { token: "x" })).verdict, "VERDICT_MALFORMED");
    client.close();
  }
  await withVariable(web, async () => assert.deepEqual(await use({}), GOOD));
  // An option counts more than the environment.
  await withVariable(join(folder, "missing"), async () => assert.deepEqual(await use({ keyFile: web }), GOOD));
});

test("What the how-to page shows for an authority with callers works.", async () => {
  const page = readFileSync(new URL("../../../docs/how-to/express.md", import.meta.url), "utf8");
  const [, block] = /^## If sessiond has callers$.*?^```js\n(.*?)^```/ms.exec(page);
  const line = block.replace("127.0.0.1:7443", authority.target).replace("/run/secrets/shop.key", web);
  const seen = [];
  new Function("app", "sessiond", line)({ use: () => undefined }, (options) => seen.push(options));
  assert.deepEqual(await use(seen[0]), GOOD);
});

test("The store of express-session needs the roles issuer and operator, and works with them.", async () => {
  const keyFile = await authority.addCaller("store", "issuer:default", "operator:default");
  const store = new SessionStore({ target: authority.target, timeout: 30_000, keyFile });
  const session = { cookie: { originalMaxAge: null, expires: null }, cart: ["teapot"] };
  try {
    await promisify(store.set).call(store, "one", session);
    assert.deepEqual((await promisify(store.get).call(store, "one")).cart, ["teapot"]);
    assert.equal(await promisify(store.length).call(store), 1);
    await promisify(store.destroy).call(store, "one");
    assert.equal(await promisify(store.get).call(store, "one"), undefined);
    await promisify(store.clear).call(store);
  } finally {
    store.close();
  }
  const less = new SessionStore({ target: authority.target, timeout: 30_000, keyFile: web });
  await assert.rejects(promisify(less.get).call(less, "two"), (error) => {
    assert.match(error.message, /ListSessions: PERMISSION_DENIED: .*operator.*option keyFile/);
    return error.code === "internal";
  });
  less.close();
});

/** The error of a validation with these options of the client. */
async function refusal(options) {
  const client = new Authority({ target: authority.target, timeout: 30_000, ...options });
  try {
    await client.call("ValidateSession", { token: "x" });
  } catch (error) {
    return error;
  } finally {
    client.close();
  }
  return undefined;
}

test("A call without a key says that it sent none, and where to set one.", async () => {
  const { code, status, message } = await refusal({});
  assert.deepEqual([code, status], ["internal", 500]);
  assert.match(
    message,
    /^sessiond: ValidateSession: UNAUTHENTICATED: no credentials: .* no key: set the option keyFile/,
  );
});

test("A wrong key is refused, with the place that it came from and without the key.", async () => {
  const wrong = `${keyOf(web).slice(0, -4)}AAAA`;
  for (const options of [{ key: wrong }, { keyFile: authority.keepKey("wrong", `${wrong}\n`) }]) {
    const error = await refusal(options);
    assert.match(error.message, /UNAUTHENTICATED: .*the key from (the option key|the file .*wrong\.key)/);
    assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(wrong.slice(-30)));
  }
});

test("During the overlap of a rotation both keys work, and without one only the new key does.", async () => {
  const old = keyOf(await authority.addCaller("rotated", ...WEB));
  const second = (await authority.sessionctl("callers", "rotate", "rotated", "--overlap", "1h", "--key-only")).trim();
  assert.deepEqual([await refusal({ key: old }), await refusal({ key: second })], [undefined, undefined]);
  const third = (await authority.sessionctl("callers", "rotate", "rotated", "--key-only")).trim();
  for (const key of [old, second]) {
    assert.match((await refusal({ key })).message, /UNAUTHENTICATED: .*the key from the option key/);
  }
  assert.equal(await refusal({ key: third }), undefined);
});

test("A connection that is open is refused from the call after the removal of its caller on.", async () => {
  const keyFile = await authority.addCaller("leaving", ...WEB);
  const client = new Authority({ target: authority.target, timeout: 30_000, keyFile });
  await client.call("ValidateSession", { token: "x" });
  await authority.sessionctl("callers", "revoke", "leaving");
  await assert.rejects(client.call("ValidateSession", { token: "x" }), /UNAUTHENTICATED: .*leaving\.key/);
  client.close();
});

test("A call for which the caller has no role says which role it needs, and who needs it.", async () => {
  const validator = await authority.addCaller("reader", "validator:default");
  const client = new Authority({ target: authority.target, timeout: 30_000, keyFile: validator });
  await client.call("ValidateSession", { token: "x" });
  await assert.rejects(client.call("CreateSession", {}), /PERMISSION_DENIED: .*issuer.*reader\.key/);
  client.close();
  const elsewhere = await authority.addCaller("elsewhere", "issuer:named");
  const { statuses, errors } = await use({ keyFile: elsewhere });
  assert.ok(statuses.every((status) => status === 500));
  assert.match(errors[0].message, /unknown application 'default' \(configured for this caller: named\)/);
});

test("A site whose caller is refused answers requests that need the authority with 500, and reports why.", async () => {
  const good = await openSite(authority.target, { options: { keyFile: web } });
  const bad = await openSite(authority.target, { options: { key: `${keyOf(web)}x` } });
  try {
    const browser = new Browser(good);
    await browser.login("alice");
    browser.site = bad;
    const response = await browser.get("/account");
    assert.deepEqual([response.status, response.json, response.setCookie], [500, { error: "internal" }, []]);
    assert.match(bad.seen.errors[0].message, /UNAUTHENTICATED/);
    assert.equal(browser.cookies.size, 1);
  } finally {
    await good.close();
    await bad.close();
  }
});

/** A new file with this text. */
function file(text) {
  const path = join(mkdtempSync(join(folder, "file-")), "wrong.key");
  writeFileSync(path, text);
  return path;
}

test("Wrong options for a key are refused, and no error shows a key.", () => {
  const secret = "sessiond_secret-of-this-test";
  const cases = [
    [{ key: `${secret}\n` }, /option key is wrong; expected a caller key, as `sessionctl callers add` shows it/],
    [{ key: "" }, /option key is wrong/],
    [{ key: 7 }, /option key is wrong/],
    [{ key: null }, /option key is wrong/],
    [{ key: `${secret}ä` }, /option key is wrong/],
    [{ key: secret, keyFile: web }, /options key and keyFile are both set; expected one of them/],
    [{ keyFile: "" }, /option keyFile is ""; expected the path of a file with a caller key/],
    [{ keyFile: 7 }, /option keyFile is number/],
    [{ keyFile: join(folder, "missing") }, /option keyFile: .*missing cannot be read \(ENOENT\); name a file/],
    [{ keyFile: folder }, /cannot be read \(EISDIR\)/],
    [{ keyFile: file("") }, /wrong\.key does not hold a key; write one line/],
    [{ keyFile: file(`${secret}\n${secret}\n`) }, /does not hold a key/],
    [{ keyFile: file(`a ${secret}`) }, /does not hold a key/],
    [{ keyFile: file(secret.padEnd(4_097, "x")) }, /does not hold a key/],
  ];
  for (const [options, expected] of cases) {
    for (const create of [sessiond, (all) => new SessionStore(all)]) {
      assert.throws(
        () => create({ target: authority.target, ...options }),
        (error) => {
          assert.match(error.message, expected);
          return error instanceof TypeError && !inspect(error).includes("secret-of-this-test");
        },
      );
    }
  }
});

test("A key is not sent unencrypted to another host: the middleware and the store refuse that target.", () => {
  const secret = "sessiond_secret-of-this-test";
  const remote = ["sessiond:7443", "10.0.0.7:7443", "[2001:db8::1]:7443", "dns:///sessiond:7443", "0.0.0.0:7443"];
  remote.push("ipv4:127.0.0.1:7443,10.0.0.7:7443", "127.0.0.1.example:7443", "dns://10.0.0.7/localhost:7443");
  const local = ["127.0.0.1:7443", "127.8.8.8", "localhost:7443", "localhost", "[::1]:7443", "unix:/run/s.sock"];
  local.push("dns:///localhost:7443", "ipv4:127.0.0.1:7443", "ipv6:[::1]:7443", "unix:///run/s.sock");
  for (const create of [sessiond, (all) => new SessionStore(all)]) {
    for (const target of remote) {
      const credentials = grpc.credentials.createInsecure();
      for (const options of [{ key: secret }, { key: secret, credentials }, { keyFile: web }]) {
        assert.throws(
          () => create({ target, ...options }),
          (error) => {
            assert.match(
              error.message,
              /^option target is ".*", and the .* has a caller key, .* set the option creden/,
            );
            return error instanceof TypeError && !error.message.includes(secret);
          },
          target,
        );
      }
      create({ target, key: secret, credentials: grpc.credentials.createSsl() }).close();
      create({ target }).close(); // no key is at risk
    }
    for (const target of local) {
      create({ target, key: secret }).close();
    }
  }
});

test("Over a Unix socket and over TLS the key is sent too.", async () => {
  for (const kind of [{ unix: true }, { tls: true }]) {
    const server = await AuthorityProcess.start({ callers: false, ...kind });
    try {
      await server.addCaller("ops", "admin");
      const credentials = server.ca && grpc.credentials.createSsl(server.ca);
      const client = new Authority({
        target: server.target,
        timeout: 30_000,
        keyFile: await server.addCaller("web", ...WEB),
        ...(credentials ? { credentials } : {}),
      });
      assert.equal((await client.call("ValidateSession", { token: "x" })).verdict, "VERDICT_MALFORMED");
      client.close();
    } finally {
      await server.stop();
    }
  }
});

test("A wrong SESSIOND_KEY_FILE is refused by its name, and an empty one counts as not set.", async () => {
  await withVariable(join(folder, "missing"), () =>
    assert.throws(
      () => sessiond({ target: authority.target }),
      /^TypeError: SESSIOND_KEY_FILE: .*missing cannot be read/,
    ),
  );
  await withVariable("", async () => assert.match((await refusal({})).message, /no key/));
});

// What is read from headers and options, without an authority.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createRequire } from "node:module";
import { inspect } from "node:util";

const require = createRequire(import.meta.url);
const { ClientReader } = require("../dist/client.js");
const { readSessionCookie } = require("../dist/cookies.js");
const { RequestData } = require("../dist/data.js");
const { OriginCheck } = require("../dist/origin.js");
const { matcher } = require("../dist/paths.js");
const { requires, safeNext, sessiond, Token } = require("@sessiond/express");
const { SessionStore } = require("@sessiond/express/store");

const request = (headers, remoteAddress = "10.0.0.9") => ({ headers, socket: { remoteAddress } });
const address = (options, headers, remote) => new ClientReader(options).read(request(headers, remote)).ipAddress;

test("Without a trusted proxy the address of the connection counts, whatever a header says.", () => {
  const headers = { "x-forwarded-for": "192.0.2.1", forwarded: "for=192.0.2.1" };
  assert.equal(address({}, headers), "10.0.0.9");
  assert.equal(address({ trustProxy: 0 }, headers), "10.0.0.9");
  assert.equal(address({ trustProxy: ["10.1.0.0/16"] }, headers), "10.0.0.9");
  assert.equal(address({}, {}, "::ffff:192.0.2.7"), "192.0.2.7");
  assert.equal(address({}, {}, "fe80::1%eth0"), "fe80::1");
  assert.equal(address({ trustProxy: 1 }, headers, undefined), "192.0.2.1");
});

test("Behind a number of proxies the address counts that the outermost of them saw.", () => {
  const headers = { "x-forwarded-for": "203.0.113.66, 192.0.2.1:4711 ,10.0.0.8" };
  assert.equal(address({ trustProxy: 1 }, headers), "10.0.0.8");
  assert.equal(address({ trustProxy: 2 }, headers), "192.0.2.1");
  assert.equal(address({ trustProxy: 3 }, headers), "203.0.113.66");
  assert.equal(address({ trustProxy: 9 }, headers), "203.0.113.66");
  assert.equal(address({ trustProxy: 1 }, {}), "10.0.0.9");
});

test("Behind proxies in known networks the first address outside of them counts.", () => {
  const headers = { "x-forwarded-for": "203.0.113.66, 192.0.2.1, 10.0.0.8" };
  assert.equal(address({ trustProxy: "10.0.0.0/8" }, headers), "192.0.2.1");
  assert.equal(address({ trustProxy: ["10.0.0.9", "10.0.0.8", "192.0.2.1"] }, headers), "203.0.113.66");
  assert.equal(
    address({ trustProxy: "fd00::/8, 10.0.0.9" }, { "x-forwarded-for": "[2001:db8::7]:443" }),
    "2001:db8::7",
  );
  assert.equal(address({ trustProxy: "10.0.0.0/8" }, { "x-forwarded-for": "192.0.2.1" }, undefined), "192.0.2.1");
});

test("An address that a proxy does not know is empty, and what is before it is not believed.", () => {
  for (const claimed of ["unknown", "_hidden", "", "nonsense", "1.2.3.4.5", "[", "192.0.2.1:x"]) {
    assert.equal(address({ trustProxy: 2 }, { "x-forwarded-for": `203.0.113.66, ${claimed}` }), "", claimed);
  }
});

test("The header Forwarded is read as RFC 7239 writes it.", () => {
  const options = { trustProxy: 1, proxyHeader: "Forwarded" };
  const cases = {
    "for=192.0.2.60;proto=http;by=203.0.113.43": "192.0.2.60",
    'For="[2001:db8:cafe::17]:4711"': "2001:db8:cafe::17",
    'for=203.0.113.1, proto=https; for="192.0.2.43:80"': "192.0.2.43",
    'for="a,b;c\\"d", for=192.0.2.2': "192.0.2.2",
    "for=192.0.2.1;for=192.0.2.2": "",
    "proto=https": "",
    "for=unknown": "",
    'for="192.0.2.1': "",
  };
  for (const [forwarded, expected] of Object.entries(cases)) {
    assert.equal(address(options, { forwarded, "x-forwarded-for": "203.0.113.9" }), expected, forwarded);
  }
});

test("A cookie is found by its exact name, the first name wins, and two of one name are ambiguous.", () => {
  const read = (header) => readSessionCookie(header, ["member", "guest"]);
  assert.deepEqual(read(undefined), { token: "", ambiguous: false });
  assert.deepEqual(read("xmember=1; Member=2; memberx=3; member"), { token: "", ambiguous: false });
  assert.deepEqual(read("guest=g; a=b;member=m"), { token: "m", ambiguous: false });
  assert.deepEqual(read('guest="g=="'), { token: "g==", ambiguous: false });
  assert.deepEqual(read("guest=1; guest=2; member=m"), { token: "m", ambiguous: false });
  for (const header of ["member=1; member=1", "member=1; guest=2;member=3", "member=1, member=2", "guest=1; guest=2"]) {
    assert.deepEqual(read(header), { ambiguous: true }, header);
  }
});

test("A path matches a pattern only as the client sent it.", () => {
  const matches = matcher("csrfExempt", ["/hook", "/static/*", /^\/v\d\//g]);
  for (const path of ["/hook", "/static/", "/static/a/b", "/v1/x", "/v2/x"]) {
    assert.equal(matches(path), true, path);
  }
  for (const path of [
    "/hook/",
    "/hooks",
    "/HOOK",
    "/static",
    "/static/../cart",
    "/static/%2e%2E/cart",
    "/x/v1/",
    "//hook",
  ]) {
    assert.equal(matches(path), false, path);
  }
});

test("A path to return to stays on this site.", () => {
  assert.equal(safeNext("/a/../b?c=d#e"), "/b?c=d#e");
  for (const path of [
    undefined,
    null,
    1,
    ["/a"],
    "a",
    "//a",
    "/\\a",
    "/a\\b",
    "/\u0000",
    "http://a",
    "/.//a",
    "/a b",
  ]) {
    assert.equal(safeNext(path, "/home"), "/home", String(path));
  }
});

test("A token shows itself to nothing but reveal.", () => {
  const token = new Token("secret");
  const forms = [
    inspect(token, { showHidden: true }),
    `${token}`,
    JSON.stringify({ token }),
    inspect({ token }),
    String(token),
  ];
  assert.ok(
    forms.every((form) => !form.includes("secret") && form.includes("<Token>")),
    forms.join(" "),
  );
  assert.equal(token.reveal(), "secret");
});

test("Data of another program is left alone, whether it is JSON in another notation or no JSON at all.", () => {
  const data = new RequestData({
    spaced: Buffer.from('{"a": 1}'),
    binary: Buffer.from([255]),
    big: Buffer.from("12345678901234567890"),
  });
  assert.deepEqual({ ...data.values }, { spaced: { a: 1 }, big: 12345678901234567890 });
  assert.equal(data.changes(), undefined);
  data.values.spaced.a = 2;
  delete data.values.big;
  data.values.undefined = undefined;
  const change = data.changes();
  assert.deepEqual([{ ...change.set }, change.delete], [{ spaced: Buffer.from('{"a":2}') }, ["big"]]);
  data.saved(change);
  assert.equal(data.changes(), undefined);
});

test("A wrong option is named, with what is expected.", () => {
  const target = "127.0.0.1:1";
  const wrong = [
    [() => sessiond(), /option target .*expected/],
    [() => sessiond({ target: "" }), /option target/],
    [() => sessiond({ target, aplication: "shop" }), /unknown option aplication; the options are target, application/],
    [() => sessiond({ target, application: 1 }), /option application/],
    [() => sessiond({ target, timeout: 0 }), /option timeout/],
    [() => sessiond({ target, trustProxy: -1 }), /option trustProxy/],
    [() => sessiond({ target, trustProxy: true }), /option trustProxy is boolean/],
    [() => sessiond({ target, trustProxy: "10.0.0.0/33" }), /option trustProxy is "10\.0\.0\.0\/33"/],
    [() => sessiond({ target, trustProxy: ["proxy"] }), /option trustProxy is "proxy"/],
    [() => sessiond({ target, proxyHeader: "X-Real-IP" }), /option proxyHeader/],
    [() => sessiond({ target, loginPath: "https://a" }), /option loginPath/],
    [() => sessiond({ target, loginPath: "//a" }), /option loginPath/],
    [() => sessiond({ target, csrfExempt: "/a" }), /option csrfExempt/],
    [() => sessiond({ target, publicPaths: ["a"] }), /option publicPaths is "a"/],
    [() => sessiond({ target, onError: 1 }), /option onError/],
    [() => new OriginCheck(["https://a.example/path"]), /option trustedOrigins/],
    [() => new OriginCheck(["*"]), /option trustedOrigins/],
    [() => requires({ level: 4 }), /option level/],
    [() => requires({ maxAge: 0 }), /option maxAge/],
    [() => new SessionStore({ target, name: "" }), /option name/],
    [() => new SessionStore({ target, touchAfter: -1 }), /option touchAfter/],
    [() => new SessionStore({ target, ttl: 1 }), /unknown option ttl/],
  ];
  for (const [attempt, message] of wrong) {
    assert.throws(attempt, message);
  }
  assert.throws(() => requires()({ headers: {} }, {}, () => undefined), /sessiond\(\) must come before/);
});

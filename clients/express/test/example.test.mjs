// The example shop, as a process of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { AuthorityProcess } from "./support/authority.mjs";
import { Browser } from "./support/site.mjs";

const here = dirname(dirname(fileURLToPath(import.meta.url)));
const example = join(here, "../../examples/express/shop.mjs");

let authority;
let shop;
let site;
before(async () => {
  authority = await AuthorityProcess.start();
  const copy = join(here, "build/example/shop.mjs"); // where the package and its dependencies are found
  mkdirSync(dirname(copy), { recursive: true });
  cpSync(example, copy);
  shop = spawn(process.execPath, [copy], { env: { ...process.env, SESSIOND_TARGET: authority.target, PORT: "0" } });
  const address = await new Promise((resolve, reject) => {
    shop.stdout.once("data", (chunk) => resolve(String(chunk)));
    shop.stderr.once("data", (chunk) => reject(new Error(String(chunk))));
  });
  site = { port: Number(new URL(address.trim()).port) };
});
after(async () => {
  shop?.kill();
  await authority?.stop();
});

/** Open a page and send one of its forms, with its hidden fields. */
async function submit(browser, page, action, fields = {}) {
  const { text } = await browser.page(page);
  const form = text.split("<form").find((part) => part.includes(`action="${action}"`));
  const hidden = [...form.matchAll(/type="hidden" name="(\w+)" value="([^"]*)"/g)].map(([, name, value]) => [
    name,
    value,
  ]);
  return browser.post(action, { ...Object.fromEntries(hidden), ...fields });
}

test("The example has fewer than sixty lines.", () => {
  assert.ok(readFileSync(example, "utf8").trimEnd().split("\n").length < 60);
});

test("In the example shop a guest fills a cart, logs in, steps up, ends another device, and logs out.", async () => {
  const [laptop, phone] = [new Browser(site), new Browser(site)];
  const password = { user: "alice", password: "teapot" };
  await submit(laptop, "/", "/cart", { item: "teapot" });
  await submit(laptop, "/", "/cart", { item: "<b>" });
  assert.match((await laptop.page("/")).text, /Hello guest\. In your cart: teapot\n/);
  assert.equal((await submit(laptop, "/login", "/login", { user: "mallory" })).status, 401);
  assert.equal((await submit(laptop, "/login", "/login", { ...password, password: "x" })).status, 401);
  assert.equal((await submit(laptop, "/login", "/login", password)).location, "/");
  assert.match((await laptop.page("/")).text, /Hello alice\. In your cart: teapot\n/);
  const asked = (await laptop.page("/orders")).location;
  assert.equal(asked, "/login?next=%2Forders&min_level=2");
  assert.equal((await submit(laptop, asked, "/login", { ...password, code: "1" })).status, 401);
  assert.equal((await submit(laptop, asked, "/login", { ...password, code: "123456" })).location, "/orders");
  assert.match((await laptop.page("/orders")).text, /Your orders/);
  await submit(phone, "/login", "/login", password);
  assert.match((await laptop.page("/devices")).text, /Firefox 140 on Linux.*\(this one\)/);
  assert.equal((await submit(laptop, "/devices", "/devices/end")).location, "/devices");
  assert.equal((await phone.page("/devices")).location, "/login?next=%2Fdevices");
  assert.equal((await submit(laptop, "/", "/logout")).location, "/");
  assert.match((await laptop.page("/")).text, /Hello guest\. In your cart: \n/);
});

test("The application on the how-to page works as it stands, and what it says about the store too.", async () => {
  const page = readFileSync(join(here, "../../docs/how-to/express.md"), "utf8");
  const [app, , store] = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, block]) => block);
  const port = "app.listen(0, function () { console.log(this.address().port); });";
  const local = (block) => block.replaceAll("127.0.0.1:7443", authority.target);
  const programs = {
    "app.mjs": local(app).replace("app.listen(3000);", port),
    "store.mjs": `import express from "express"; const app = express(); ${local(store)}
      app.get("/", (req, res) => res.send(String((req.session.visits = (req.session.visits ?? 0) + 1)))); ${port}`,
  };
  const browsers = {};
  const processes = [];
  try {
    for (const [name, text] of Object.entries(programs)) {
      const file = join(here, "build/example", name);
      writeFileSync(file, text);
      const child = spawn(process.execPath, [file], { env: { ...process.env, COOKIE_SECRET: "keyboard cat" } });
      processes.push(child);
      const line = await new Promise((resolve, reject) => {
        child.stdout.once("data", resolve);
        child.stderr.once("data", (chunk) => reject(new Error(String(chunk))));
      });
      browsers[name] = new Browser({ port: Number(line) });
    }
    const browser = browsers["app.mjs"];
    await browser.post("/cart", { item: "teapot" });
    assert.deepEqual((await browser.get("/")).json, { user: "guest", cart: ["teapot"] });
    assert.equal((await browser.get("/account")).status, 401);
    const form = { user: "alice", password: "teapot", next: "/account" };
    assert.equal((await browser.post("/login", form)).status, 403); // the guest has a session, and so a CSRF token
    browser.cookies.clear();
    assert.equal((await browser.post("/login", { ...form, password: "x" })).status, 401);
    assert.equal((await browser.post("/login", form)).location, "/account");
    const csrf_token = (await browser.get("/account")).text;
    assert.equal((await browser.get("/payment")).json.min_level, 2);
    assert.equal((await browser.post("/logout", { csrf_token })).location, "/");
    assert.equal((await browser.get("/account")).status, 401);
    assert.equal((await browsers["store.mjs"].get("/")).text, "1");
    assert.equal((await browsers["store.mjs"].get("/")).text, "2");
  } finally {
    for (const child of processes) {
      child.kill();
    }
  }
});

// A small shop on the middleware, and a browser that keeps cookies as browsers do.
import { request as send } from "node:http";
import { createRequire } from "node:module";

import express from "express";

const require = createRequire(import.meta.url);
export const { sessiondAt } = require("../../dist/middleware.js");
export const { requires, sessiond, sessiondErrors, SessiondError } = require("@sessiond/express");

/** Start a site with `options` of the middleware. `routes` adds routes, `first` is middleware before ours. */
export async function openSite(
  target,
  { options = {}, routes = () => undefined, first = [], now, framework = express } = {},
) {
  const seen = { errors: [] };
  // A long timeout: a busy machine is not what the tests are about.
  const settings = { target, timeout: 30_000, onError: (error) => seen.errors.push(error), ...options };
  const middleware = now === undefined ? sessiond(settings) : sessiondAt(settings, now);
  const app = framework();
  app.set("env", "test"); // Express then does not log the errors that tests provoke
  app.use(...first, framework.urlencoded({ extended: false }), framework.json(), middleware);
  app.get("/", async (req, res) => {
    res.json({ subject: req.sessiond.subject ?? null, cart: req.session.cart ?? [] });
  });
  app.get("/form", async (req, res) => res.send(await req.sessiond.csrfToken()));
  app.post("/cart", (req, res) => {
    req.session.cart = [...(req.session.cart ?? []), req.body.item];
    res.redirect(303, "/");
  });
  app.post("/login", async (req, res) => {
    await req.sessiond.login(req.body.user, { level: Number(req.body.level ?? 1), methods: ["pwd"] });
    res.redirect(303, req.sessiond.safeNext(req.body.next));
  });
  app.post("/logout", async (req, res) => {
    await req.sessiond.logout();
    res.redirect(303, "/");
  });
  app.get("/account", requires(), (req, res) => res.send(`account of ${req.sessiond.subject}`));
  app.get("/payment", requires({ level: 2 }), (req, res) => res.send("payment"));
  app.get("/password", requires({ maxAge: 300 }), (req, res) => res.send("password"));
  app.get("/devices", requires(), async (req, res) => res.json(await req.sessiond.devices()));
  app.post("/devices/end", requires(), async (req, res) =>
    res.json({ ended: await req.sessiond.endDevice(req.body.id) }),
  );
  routes(app);
  app.use(sessiondErrors());
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    port: server.address().port,
    seen,
    app,
    close: () => {
      middleware.close();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

export class Browser {
  cookies = new Map();

  constructor(site, headers = {}) {
    this.site = site;
    this.headers = {
      "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
      ...headers,
    };
  }

  /** The Cookie header that the browser sends now. */
  get cookie() {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  get(path, headers = {}) {
    return this.send("GET", path, { headers });
  }

  /** Open a page, as by a click. */
  page(path, headers = {}) {
    return this.get(path, { Accept: "text/html,application/xhtml+xml", ...headers });
  }

  post(path, fields = {}, headers = {}) {
    return this.send("POST", path, { fields, headers: { "Sec-Fetch-Site": "same-origin", ...headers } });
  }

  /** Post a form of this site, with the page's CSRF token. */
  async submit(path, fields = {}, headers = {}) {
    const { text } = await this.get("/form");
    return this.post(path, { csrf_token: text, ...fields }, headers);
  }

  login(user, more = {}) {
    return this.submit("/login", { user, ...more });
  }

  /** Send a request, and keep the cookies of the response. `cookie` replaces those of the browser. */
  async send(method, path, { fields, headers = {}, cookie = this.cookie } = {}) {
    const body = fields === undefined ? undefined : new URLSearchParams(fields).toString();
    const all = { ...this.headers, ...headers };
    if (body !== undefined) {
      all["Content-Type"] ??= "application/x-www-form-urlencoded";
      all["Content-Length"] = Buffer.byteLength(body);
    }
    if (cookie !== "") {
      all.Cookie = cookie;
    }
    const response = await new Promise((resolve, reject) => {
      const outgoing = send({ host: "127.0.0.1", port: this.site.port, method, path, headers: all }, resolve);
      outgoing.on("error", reject);
      outgoing.end(body);
    });
    const chunks = [];
    for await (const chunk of response) {
      chunks.push(chunk);
    }
    const setCookie = response.headers["set-cookie"] ?? [];
    this.#keep(setCookie);
    return {
      status: response.statusCode,
      headers: response.headers,
      location: response.headers.location,
      bytes: Buffer.concat(chunks),
      text: Buffer.concat(chunks).toString(),
      get json() {
        return JSON.parse(this.text);
      },
      setCookie,
    };
  }

  #keep(setCookie) {
    for (const text of setCookie) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(text);
      if (/Max-Age=0/i.test(text)) {
        this.cookies.delete(name);
      } else {
        this.cookies.set(name, value);
      }
    }
  }
}

// A small shop: a guest's cart, a login, a page that needs a second factor, the user's devices, a logout.
import express from "express";
import { requires, sessiond, sessiondErrors } from "@sessiond/express";

const ITEMS = ["teapot", "cup", "spoon"];
const USERS = new Map([["alice", { password: "teapot", code: "123456" }]]); // your own user database
const text = (value) => String(value ?? "").replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
/** A form with the session's CSRF token. A guest without a session has none, and needs none. */
async function form(req, action, button, fields = "") {
  const token = req.sessiond.sessionId ? await req.sessiond.csrfToken() : "";
  return `<form method="post" action="${action}">${fields}<button>${button}</button>
<input type="hidden" name="csrf_token" value="${token}"></form>`;
}
const app = express();
const sessions = sessiond({ target: process.env.SESSIOND_TARGET ?? "127.0.0.1:7443", publicPaths: ["/"] });
app.use(express.urlencoded({ extended: false }), sessions); // in this order: sessiond finds csrf_token in forms
app.get("/", async (req, res) => {
  const add = await form(req, "/cart", "Add to cart", `<select name="item"><option>${ITEMS.join("<option>")}</select>`);
  const user = req.sessiond.subject;
  const out = user ? await form(req, "/logout", "Log out") : '<a href="/login">Log in</a>';
  res.send(`<p>Hello ${text(user ?? "guest")}. In your cart: ${text(req.session.cart?.join(", "))}
<p>${add} <a href="/orders">Orders</a> <a href="/devices">Devices</a> ${out}`);
});
app.post("/cart", (req, res) => {
  req.session.cart = [...(req.session.cart ?? []), ...ITEMS.filter((item) => item === req.body.item)];
  res.redirect(303, "/");
});
app.get("/login", async (req, res) => {
  const code = req.query.min_level === "2" ? 'Code <input name="code">' : "";
  const next = `<input type="hidden" name="next" value="${text(req.query.next)}">`;
  const fields = `${next}User <input name="user"> Password <input name="password" type="password">${code}`;
  res.send(await form(req, "/login", "Log in", fields));
});
app.post("/login", async (req, res) => {
  const user = USERS.get(req.body.user);
  if (!user || user.password !== req.body.password || (req.body.code && user.code !== req.body.code)) {
    return res.status(401).send("Wrong user name, password or code.");
  }
  await req.sessiond.login(req.body.user, req.body.code ? { level: 2, methods: ["pwd", "otp"] } : { level: 1 });
  res.redirect(303, req.sessiond.safeNext(req.body.next));
});
app.get("/orders", requires({ level: 2, maxAge: 600 }), (req, res) => res.send("Your orders, with your address."));
app.get("/devices", requires(), async (req, res) => {
  const rows = (await req.sessiond.devices()).map(async ({ id, current, description, lastActiveTime }) => {
    const end = await form(req, "/devices/end", "Sign out", `<input type="hidden" name="id" value="${id}">`);
    return `<li>${text(description)}, ${lastActiveTime.toISOString()} ${current ? "(this one)" : end}`;
  });
  res.send(`<ul>${(await Promise.all(rows)).join("")}</ul>`);
});
app.post("/devices/end", requires(), async (req, res) => {
  await req.sessiond.endDevice(req.body.id);
  res.redirect(303, "/devices");
});
app.post("/logout", async (req, res) => {
  await req.sessiond.logout();
  res.redirect(303, "/");
});
app.use(sessiondErrors());
const server = app.listen(process.env.PORT ?? 3000, () => console.log(`http://localhost:${server.address().port}`));

// Compiled, never run: an application in TypeScript that imports the package.
import express from "express";
import session from "express-session";

import {
  requires,
  sessiond,
  type Device,
  type PathPattern,
  sessiondErrors,
  SessiondError,
  Token,
} from "@sessiond/express";
import { SessionStore } from "@sessiond/express/store";

const exempt: PathPattern[] = ["/hook", /^\/v\d/];
const app = express();
app.use(
  sessiond({ target: "unix:/run/sessiond/sessiond.sock", application: "shop", trustProxy: 1, csrfExempt: exempt }),
);
app.get("/", requires({ level: 2, maxAge: 300 }), async (req, res) => {
  const subject: string | undefined = req.sessiond.subject;
  const devices: Device[] = await req.sessiond.devices();
  await req.sessiond.login("alice", { level: 2, methods: ["pwd", "otp"], persistent: true });
  req.sessiond.data["cart"] = ["teapot"];
  res.send(
    `${subject} ${devices[0]?.current} ${await req.sessiond.csrfToken()} ${req.sessiond.safeNext(req.query["next"])}`,
  );
});
app.use(sessiondErrors());
sessiond({ target: "127.0.0.1:7443", keyFile: "/run/secrets/shop.key" }).close();
sessiond({ target: "127.0.0.1:7443", key: new Token("text") }).close();
const error = new SessiondError("locked", "text");
const status: number = error.status;
app.use(session({ secret: "s", store: new SessionStore({ target: "127.0.0.1:7443", name: String(status) }) }));

// @ts-expect-error: an option that does not exist
sessiond({ target: "127.0.0.1:7443", aplication: "shop" });
// @ts-expect-error: `target` is required
sessiond({});
// @ts-expect-error: a key is a text or a Token
sessiond({ target: "127.0.0.1:7443", key: 7 });
// @ts-expect-error: a level is a number
requires({ level: "2" });

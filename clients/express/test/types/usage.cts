// Compiled, never run: the same with require.
import sessions = require("@sessiond/express");
import stores = require("@sessiond/express/store");

export const middleware: sessions.SessiondMiddleware = sessions.sessiond({ target: "127.0.0.1:7443" });
export const store: stores.SessionStore = new stores.SessionStore({ target: "127.0.0.1:7443" });

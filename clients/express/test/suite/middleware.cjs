// Stands in for express-session in its own test suite: our middleware. The authority names its cookies as the suite
// expects. The options of express-session have no effect; cases about them are left out.
const original = require(process.env.SUITE_ORIGINAL);
const { sessiond } = require(process.env.SUITE_MIDDLEWARE);
const { Authority } = require(process.env.SUITE_AUTHORITY);

const connection = { target: process.env.SUITE_TARGET, application: "suite", timeout: 30_000 };
const authority = new Authority(connection);
/** What a case asks the store that it made: about the sessions that the middleware has opened since. */
class SuiteStore {
  #before = authority.call("ListSessions", { pageSize: 1_000 }).then(idsOf);

  async #ids() {
    const before = await this.#before;
    return idsOf(await authority.call("ListSessions", { pageSize: 1_000 })).filter((id) => !before.includes(id));
  }

  all(callback) {
    this.#ids().then((ids) => callback(null, ids), callback);
  }

  length(callback) {
    this.#ids().then((ids) => callback(null, ids.length), callback);
  }

  clear(callback) {
    const end = (sessionId) => authority.call("RevokeSession", { session: { sessionId }, reason: "cleared" });
    this.#ids()
      .then((ids) => Promise.all(ids.map(end)))
      .then(() => callback(null), callback);
  }
}

function idsOf({ sessions }) {
  return sessions.map(({ sessionId }) => sessionId);
}

function middleware() {
  const ours = sessiond({ ...connection, csrfExempt: [/./], onError: () => undefined });
  if (process.env.SUITE_BREAK === "get") {
    return (request, response, next) => {
      delete request.headers.cookie;
      ours(request, response, next);
    };
  }
  return ours;
}

module.exports = Object.assign(middleware, original, { MemoryStore: SuiteStore });

// Stands in for express-session in its own test suite: the same module, whose default store is ours.
const original = require(process.env.SUITE_ORIGINAL);
const { SessionStore } = require(process.env.SUITE_STORE);

let stores = 0;

/** A store of its own for each `new MemoryStore()`, as the suite expects. */
class SuiteStore extends SessionStore {
  constructor() {
    super({
      target: process.env.SUITE_TARGET,
      timeout: 30_000,
      name: `${process.pid}-${(stores += 1)}`,
      touchAfter: 0,
    });
    if (process.env.SUITE_BREAK) {
      this[process.env.SUITE_BREAK] = (...args) => setImmediate(args.at(-1)); // does nothing, and says that it did
    }
  }
}

module.exports = Object.assign((options) => original({ store: new SuiteStore(), ...options }), original, {
  MemoryStore: SuiteStore,
});

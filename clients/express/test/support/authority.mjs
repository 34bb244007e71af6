// A real sessiond server as a process of its own, with a temporary data folder.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const REPOSITORY = join(dirname(fileURLToPath(import.meta.url)), "../../../..");
const PYTHON = process.env.SESSIOND_PYTHON ?? join(REPOSITORY, ".venv/bin/python");

/** Policies for the tests. `plain` has a cookie without prefix, so that its two names differ visibly. */
const CONFIGURATION = `
[applications.default]
[applications.default.cookie]
clear_site_data = []

[applications.named.cookie]
name = "member"
anonymous_name = "guest"
secure = false

[applications.suite.cookie]
name = "connect.sid"
anonymous_name = "connect.sid"
secure = false

[applications.short]
renewal_timeout = "1s"
renewal_overlap = "500ms"

[applications.single]
max_sessions = 1
on_limit = "reject"

[applications.asking]
max_sessions = 1
on_limit = "ask"

[applications.forgetful]
answer_retention = "1s"

[applications.strict]
preset = "owasp-high"

[applications.locked.guessing]
alarm_after = 2
lock_after = 3
deny_valid = true
`;

const ENVIRONMENT = { ...process.env, PYTHONPATH: `${REPOSITORY}:${join(REPOSITORY, "clients/python/src")}` };
/** With SESSIOND_TEST_CALLERS=1 the servers of all tests have callers, and each client sends its key. */
const WITH_CALLERS = process.env.SESSIOND_TEST_CALLERS === "1";

const run = promisify(execFile);
const running = new Set();
// A test that takes too long is ended with this signal, and no hook runs then.
process.once("SIGTERM", () => {
  for (const server of running) {
    server.kill("SIGKILL");
  }
  process.exit(143);
});

export class AuthorityProcess {
  #folder = mkdtempSync(join(tmpdir(), "sessiond-express-"));
  #process;
  #options = [];
  #trust = [];
  target = "";
  /** The certificate of the authority that signed the server's, if it serves TLS. */
  ca;

  /**
   * Start a server and wait until it serves. `callers`: add an admin, and a caller that may do what this package does;
   * clients of this process and its children then send that caller's key. `unix`: listen on a Unix socket. `tls`: serve
   * TLS with a certificate of a new authority.
   */
  static async start({ callers = WITH_CALLERS, unix = false, tls = false } = {}) {
    const server = new AuthorityProcess();
    server.target = unix ? `unix:${join(server.#folder, "sessiond.sock")}` : `127.0.0.1:${await freePort()}`;
    if (tls) {
      await server.#makeCertificate();
    }
    await server.start();
    if (callers) {
      await server.addCaller("ops", "admin");
      process.env.SESSIOND_KEY_FILE = await server.addCaller("express", "issuer", "operator");
    }
    return server;
  }

  /** Run `sessionctl` as the caller `ops`, if it exists. Returns its output. */
  async sessionctl(...args) {
    const { SESSIOND_KEY_FILE: _, ...env } = ENVIRONMENT;
    const key = join(this.#folder, "ops.key");
    const options = ["--target", this.target, "--timeout", "30", ...this.#trust];
    if (existsSync(key)) {
      options.push("--key-file", key);
    }
    return (await run(PYTHON, ["-m", "sessionctl", ...args, ...options], { cwd: this.#folder, env })).stdout;
  }

  /** Add a caller, and return the file with its key. The first one must be an admin named `ops`. */
  async addCaller(name, ...roles) {
    const key = await this.sessionctl(
      "callers",
      "add",
      name,
      ...roles.flatMap((role) => ["--role", role]),
      "--key-only",
    );
    return this.keepKey(name, key);
  }

  /** Write a key into the file of a caller, which it returns. */
  keepKey(name, key) {
    const file = join(this.#folder, `${name}.key`);
    writeFileSync(file, key, { mode: 0o600 });
    return file;
  }

  async start() {
    if (!existsSync(PYTHON)) {
      throw new Error(`no Python at ${PYTHON}: run "make test-express", or set SESSIOND_PYTHON`);
    }
    const config = join(this.#folder, "sessiond.toml");
    writeFileSync(config, CONFIGURATION);
    const options = [
      "--config",
      config,
      "--data",
      join(this.#folder, "data"),
      "--listen",
      this.target,
      ...this.#options,
    ];
    this.#process = spawn(PYTHON, ["-m", "sessiond", "serve", ...options, "--log-format", "json"], {
      cwd: this.#folder,
      env: ENVIRONMENT,
      stdio: ["ignore", "ignore", "pipe"],
    });
    const server = this.#process;
    running.add(server);
    server.once("exit", () => running.delete(server));
    await new Promise((resolve, reject) => {
      let log = "";
      this.#process.stderr.on("data", (chunk) => {
        log += chunk;
        if (/"event": ?"serving"/.test(log)) {
          resolve();
        }
      });
      this.#process.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${log}`)));
    });
  }

  async #makeCertificate() {
    const program = [
      "import pathlib, sys",
      "from tests.support.certificates import Authority, server_files",
      "authority, folder = Authority(), pathlib.Path(sys.argv[1])",
      "server_files(authority, folder)",
      "authority.write(folder, 'ca')",
    ];
    await run(PYTHON, ["-c", program.join("\n"), this.#folder], { env: ENVIRONMENT });
    const file = (name) => join(this.#folder, name);
    this.ca = readFileSync(file("ca.pem"));
    this.#options = ["--tls-certificate", file("server.crt"), "--tls-key", file("server.key")];
    this.#trust = ["--tls-ca", file("ca.pem")];
  }

  /** Stop and continue the process, so that it is reachable and does not answer. */
  freeze() {
    this.#process.kill("SIGSTOP");
  }

  thaw() {
    this.#process.kill("SIGCONT");
  }

  /** End the process; `start` starts it again on the same port with the same data. */
  async kill() {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await ended;
  }

  async stop() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      await this.kill();
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// A real sessiond server as a process of its own, with a temporary data folder.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

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
  target = "";

  /** Start a server and wait until it serves. */
  static async start() {
    const server = new AuthorityProcess();
    const port = await freePort();
    server.target = `127.0.0.1:${port}`;
    await server.start();
    return server;
  }

  async start() {
    if (!existsSync(PYTHON)) {
      throw new Error(`no Python at ${PYTHON}: run "make test-express", or set SESSIOND_PYTHON`);
    }
    const config = join(this.#folder, "sessiond.toml");
    writeFileSync(config, CONFIGURATION);
    const options = ["--config", config, "--data", join(this.#folder, "data"), "--listen", this.target];
    this.#process = spawn(PYTHON, ["-m", "sessiond", "serve", ...options, "--log-format", "json"], {
      cwd: this.#folder,
      env: { ...process.env, PYTHONPATH: `${REPOSITORY}:${join(REPOSITORY, "clients/python/src")}` },
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

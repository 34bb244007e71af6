// Builds dist/: copies the contract and the licence into the package, generates the types of the messages, compiles.
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(dirname(fileURLToPath(import.meta.url)));
const repository = join(here, "..", "..");
const contract = "sessiond/v1/session_authority.proto";
const require = createRequire(import.meta.url);

/** Run a program of a development dependency with this Node. */
function run(packageName, program, ...args) {
  const folder = dirname(require.resolve(`${packageName}/package.json`));
  execFileSync(process.execPath, [join(folder, program), ...args], { cwd: here, stdio: "inherit" });
}

for (const folder of ["dist", "proto", "src/generated"]) {
  rmSync(join(here, folder), { recursive: true, force: true });
}
if (!existsSync(join(repository, "protos", contract))) {
  throw new Error(`protos/${contract} is missing: build the package in a clone of the repository`);
}
mkdirSync(join(here, "proto", dirname(contract)), { recursive: true });
cpSync(join(repository, "protos", contract), join(here, "proto", contract));
cpSync(join(repository, "LICENSE"), join(here, "LICENSE"));
run(
  "@grpc/proto-loader",
  "build/bin/proto-loader-gen-types.js",
  "--longs=Number",
  "--enums=String",
  "--defaults",
  "--grpcLib=@grpc/grpc-js",
  contract,
  "--outDir=src/generated",
  "--includeDirs=proto",
);
run("typescript", "bin/tsc");
rmSync(join(here, "dist/generated"), { recursive: true, force: true }); // types that only the compilation needs

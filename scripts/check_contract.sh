#!/usr/bin/env bash
# Check the contract: it passes the linter, is compatible with the last release, and the committed stubs are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
buf lint
buf format --diff --exit-code >/dev/null || { echo "protos are not formatted; run: buf format -w" >&2; exit 1; }

# The last released contract is kept as an image beside the protos.
buf breaking --against protos/released.binpb

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
PYTHON=.venv/bin/python scripts/generate.sh "$fresh"
diff -r -q -x __pycache__ "$fresh/sessiond_stubs" clients/python/src/sessiond_stubs ||
    { echo "generated stubs are stale; run make generate and commit the result" >&2; exit 1; }
echo "contract: lint, compatibility and generated code are correct"

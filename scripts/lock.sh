#!/usr/bin/env bash
# Resolves the ranges of both pyproject.toml files into the two lock files: names, versions and hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
resolve() {
    "${UV:-uv}" pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
        --no-header --no-emit-package sessiond-client --quiet "$@"
}
resolve --extra build --extra dev pyproject.toml -o requirements/dev.lock
resolve --extra build --extra demo -c requirements/dev.lock pyproject.toml -o requirements/run.lock

#!/usr/bin/env bash
# Write the generated stubs into the folder that the argument names (default: where they are committed).
# The virtual path `sessiond_stubs/v1` makes the generated imports correct, so they need no rewriting.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=${1:-clients/python/src}
bin=$(dirname "$python")
mkdir -p "$out/sessiond_stubs/v1"
PATH="$bin:$PATH" "$python" -m grpc_tools.protoc \
    -Isessiond_stubs/v1=protos/sessiond/v1 \
    --python_out="$out" --grpc_python_out="$out" \
    --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
    sessiond_stubs/v1/session_authority.proto
printf '"""Generated stubs of the contract. Never edited: `make generate` writes them."""\n' > "$out/sessiond_stubs/__init__.py"
cp "$out/sessiond_stubs/__init__.py" "$out/sessiond_stubs/v1/__init__.py"
touch "$out/sessiond_stubs/py.typed"

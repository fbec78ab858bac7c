#!/usr/bin/env bash
# Runs the SAM CLI, which builds Rust functions through cargo-lambda; both are installed when
# missing.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_lambda=$(scripts/find-tool.sh cargo-lambda)
sam=$(scripts/find-tool.sh sam)
PATH=$(dirname "$cargo_lambda"):$PATH exec "$sam" "$@"

#!/usr/bin/env bash
# Runs the load test over the release build of the functions, beside stores of its own.
#
#   scripts/load.sh SECONDS    for so long with Postgres restarted in the middle, and again with Redis
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
POSTGRES=$(scripts/find-tool.sh postgres)
REDIS_SERVER=$(scripts/find-tool.sh redis-server)
export POSTGRES REDIS_SERVER FUNCTIONS=$target/release

cargo build --release --locked --quiet -p signup -p verify -p session -p migrate
cargo build --workspace --locked --quiet --bin load
"$target/debug/load" "$@"

#!/usr/bin/env bash
# Everything a change must pass, here and in CI.
#
# The tests start the functions as processes. They are debug builds, which cost little beside the
# tests; with FUNCTIONS, an absolute path, they are those of that folder. For what is going to be
# deployed:
#
#   cargo build --release --locked -p signup -p verify -p session -p migrate
#   FUNCTIONS=$PWD/target/release scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    if command -v shellcheck >/dev/null; then step shellcheck --severity=warning scripts/*.sh .ci/run; fi
    step cargo fmt --all --check
    if command -v cargo-deny >/dev/null; then
        step cargo deny --locked check licenses sources
        # The tests' simulator of Lambda brings a second TLS stack along; the functions must not.
        step cargo deny --locked --exclude bench --exclude harness --exclude protected-api --exclude simulators check bans
    fi
    # libFuzzer is written in C++.
    step scripts/find-tool.sh c++
    step cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS='-D warnings' step cargo doc --workspace --no-deps --document-private-items --locked
    # CI runs it by itself, and there it must not be missing.
    if scripts/audit.sh --installed; then step scripts/audit.sh; fi

    if [ -z "${FUNCTIONS-}" ]; then
        step cargo build --workspace --locked --bin signup --bin verify --bin session --bin migrate
        FUNCTIONS=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)
        export FUNCTIONS
    fi
    if command -v cargo-nextest >/dev/null; then
        in_services cargo nextest run --workspace --locked
        step cargo test --doc --workspace --locked
    else
        in_services cargo test --workspace --locked
    fi
    step scripts/test-sam-local.sh
    step scripts/fuzz.sh 10
}

in_services() {
    step scripts/with-services.sh --sns --pgbouncer "$@"
}

step() {
    printf '\n> %s\n' "$*" >&2
    "$@"
}

main

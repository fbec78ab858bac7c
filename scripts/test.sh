#!/usr/bin/env bash
# Everything a change must pass, here and in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    if command -v shellcheck >/dev/null; then step shellcheck --severity=warning scripts/*.sh .ci/run; fi
    step cargo fmt --all --check
    # libFuzzer is written in C++.
    step scripts/find-tool.sh c++
    step cargo clippy --workspace --all-targets --locked -- -D warnings
    step cargo build --release --locked -p signup -p verify -p session -p migrate
    if sam=$(scripts/find-tool.sh --installed sam); then
        step env SAM_CLI_TELEMETRY=0 "$sam" validate --lint --region us-east-1
    fi

    if command -v cargo-nextest >/dev/null; then
        in_services cargo nextest run --workspace --locked
        step cargo test --doc --workspace --locked
    else
        in_services cargo test --workspace --locked
    fi
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

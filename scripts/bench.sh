#!/usr/bin/env bash
# Measures the release builds of the functions beside their floors, and prints one table. The plot
# is in target/bench.svg. Takes ten minutes on two idle cores; see docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

main() {
    # Each by itself: crates that are built together share the features of their dependencies.
    cargo build --release --locked --quiet -p signup -p verify -p session
    cargo build --release --locked --quiet -p floors
    cargo build --release --locked --quiet -p bench

    export FUNCTIONS=$target/release PLOT=$target/bench.svg
    if go=$(scripts/find-tool.sh go); then
        TUTORIAL=$target/tutorial
        GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' "$go" build -o "$TUTORIAL" bench/tutorial/main.go
        export TUTORIAL
    fi
    if VALGRIND=$(scripts/find-tool.sh valgrind); then export VALGRIND; fi

    printf '%s, %s, %s cores, %s\n\n' "$(date +%F)" "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)" "$(rustc --version)"
    scripts/with-services.sh --pgbouncer "$target/release/bench"
}

main

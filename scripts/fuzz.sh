#!/usr/bin/env bash
# Lets libFuzzer look for a body or an event that gets a response outside the contract. What it
# finds is left in fuzz/artifacts, and what it learns in fuzz/corpus, where the next run goes on.
#
#   scripts/fuzz.sh SECONDS [LIBFUZZER OPTION]…    for so long at each target
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    local seconds=$1 target
    shift
    scripts/find-tool.sh c++ >/dev/null
    # All of the workspace is chosen, and two of its binaries built: so the features of every crate,
    # and with them what is compiled already, are those of the tests.
    RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/instrumented-rustc.sh \
        cargo build --workspace --locked --quiet --bin body --bin event
    for target in body event; do
        seed "$target"
        # What the functions write to standard output is a line per request.
        "${CARGO_TARGET_DIR:-target}/debug/$target" "fuzz/corpus/$target" -max_total_time="$seconds" -max_len=8192 \
            -timeout=10 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 "$@" \
            >/dev/null 2>"fuzz/artifacts/$target.log" || fail "$target"
        sed -n "s/^Done/$target: &/p" "fuzz/artifacts/$target.log"
    done
}

# Seeds of events are those of events/; of bodies theirs, and the lines of fuzz/bodies.txt.
seed() { # the target
    mkdir -p "fuzz/corpus/$1" "fuzz/artifacts/$1"
    if [ "$1" = event ]; then
        cp events/*.json fuzz/corpus/event/
    else
        sed -n 's/^  "body": "\(.*\)",$/\1/p' events/*.json | sed 's/\\\(.\)/\1/g' |
            cat fuzz/bodies.txt - | split -l 1 - fuzz/corpus/body/seed-
    fi
}

fail() {
    tail -n 40 "fuzz/artifacts/$1.log" >&2
    printf 'The target %s found something: see fuzz/artifacts.\n' "$1" >&2
    exit 1
}

main "$@"

#!/bin/sh
# As RUSTC_WORKSPACE_WRAPPER: the compiler with libFuzzer's instrumentation, for the crates of this
# workspace only, so that the others need not be compiled anew. What is generic of theirs, as most
# of serde_json is, is compiled with ours and has it too. The flags are those of `cargo fuzz`. Build
# scripts are not fuzzed, and have no libFuzzer to link.
case " $* " in *' --crate-name build_script_build '*) exec "$@" ;; esac
exec "$@" --cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-sanitizer-coverage-stack-depth \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0

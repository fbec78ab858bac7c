#!/usr/bin/env bash
# Runs the SAM CLI, which builds Rust functions through cargo-lambda; both are installed when
# missing.
#
# For `sam local` it first builds the functions for this machine's processor, without optimization
# and in a folder of their own: what `sam build` made for AWS stays. Their settings are those of
# `make dev`, and a container finds this machine by the name that is added, on Linux too.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_lambda=$(scripts/find-tool.sh cargo-lambda)
sam=$(scripts/find-tool.sh sam)
PATH=$(dirname "$cargo_lambda"):$PATH
# SAM reads the other name alone, the AWS CLI both.
if [ -n "${AWS_REGION-}" ]; then export AWS_DEFAULT_REGION=$AWS_REGION; fi

case "${1-} ${2-}" in
    "local invoke" | "local start-"*)
        variables=${DEV_DATA:-target/dev}/env.json
        if ! [ -e "$variables" ]; then
            echo "$variables is missing. Run make dev first, and leave it running." >&2
            exit 1
        fi
        architecture=x86_64
        case $(uname -m) in arm64 | aarch64) architecture=arm64 ;; esac
        for_this_machine=(--parameter-overrides "Architecture=$architecture")
        echo "Building the functions for this machine. The first time takes minutes." >&2
        # At the end it would advise to deploy them.
        output=$(SAM_BUILD_MODE=debug "$sam" build "${for_this_machine[@]}" --build-dir target/sam-local 2>&1) || {
            printf '%s\n' "$output" >&2
            exit 1
        }
        options=(--template-file target/sam-local/template.yaml --env-vars "$variables"
            --add-host host.docker.internal:host-gateway)
        # A container then serves more than one request.
        if [ "$2" != invoke ]; then options+=(--warm-containers LAZY); fi
        set -- "$1" "$2" "${for_this_machine[@]}" "${options[@]}" "${@:3}"
        ;;
esac
exec "$sam" "$@"

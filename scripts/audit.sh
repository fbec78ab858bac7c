#!/usr/bin/env bash
# Checks the templates: SAM's and CloudFormation's own rules, checkov's policies, our own tests, and
# a deployment over a terminal into moto.
#
#   scripts/audit.sh               installs what is missing first
#   scripts/audit.sh --installed   checks nothing, and fails if a tool is missing
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    local sam python checkov
    if [ "${1-}" = --installed ]; then
        for tool in sam pexpect checkov; do scripts/find-tool.sh --installed "$tool" >/dev/null || exit 1; done
        return
    fi
    sam=$(scripts/find-tool.sh sam)
    python=$(scripts/find-tool.sh pexpect)
    checkov=$(scripts/find-tool.sh checkov)
    # The tests start it.
    scripts/find-tool.sh cargo-lambda >/dev/null

    export SAM_CLI_TELEMETRY=0
    step "$sam" validate --lint --region us-east-1
    step "$sam" validate --lint --region us-east-1 --template examples/protected-api/template.yaml
    step "$(dirname "$python")/cfn-lint" template.yaml infra/{network,data,observability,edge}.yaml \
        examples/protected-api/template.yaml
    step "$checkov" --config-file infra/checkov.yaml --file template.yaml infra/{network,data,observability,edge}.yaml
    step "$python" -W ignore -m unittest discover --start-directory tests/template --buffer
}

step() {
    printf '\n> %s\n' "$*" >&2
    "$@"
}

main "$@"

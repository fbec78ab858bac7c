#!/usr/bin/env bash
# Does what `make dev` and docs/deploy.md say about `sam local`: an event of each function in a
# container, and requests to `sam local start-api`. It is skipped where no Docker engine answers.
set -euo pipefail
cd "$(dirname "$0")/.."

export SAM_CLI_TELEMETRY=0
folder= # deleted at the end, as are the stores' contents
jobs=   # pids of what is stopped then

main() {
    if ! docker version >/dev/null 2>&1; then
        echo "Skipped: sam local needs a Docker engine, and none answers." >&2
        return
    fi
    trap stop_all EXIT
    folder=$(mktemp -d "${TMPDIR:-/tmp}/otp-auth-sam-local.XXXXXX")
    start_dev
    invoke_each_function
    request_the_api
}

# As `make dev`, with a port and data of its own: somebody may be at work here.
start_dev() {
    export DEV_DATA=$folder
    PORT=$(free_port) scripts/with-services.sh --containers scripts/dev.sh >"$folder/dev.log" 2>&1 &
    jobs=$!
    wait_for "sam.sh local invoke" "$folder/dev.log" $!
}

invoke_each_function() {
    local command response code token
    invoke MigrateFunction -e - <<<'{"command":"status"}'
    expect '"version": 1,.*"applied": true'

    command=$(sed -n 's#^ *scripts/sam.sh local invoke ##p' "$folder/dev.log")
    # shellcheck disable=SC2086 # It is several words.
    invoke $command
    expect '"statusCode": 200.*OTP sent successfully'
    code=$(sed -nE 's/.*"message":"Generated OTP".*"otp":"([0-9]+)".*/\1/p' "$folder/sam.log")

    invoke VerifyFunction -e - < <(sed "s/123456/$code/" events/verify.json)
    expect '"statusCode": 200.*User registered successfully'
    token=$(sed -nE 's/.*access_token\\":\\"([^\\]+).*/\1/p' <<<"$response")

    invoke SessionFunction -e - < <(sed "s/\"Bearer .*\"/\"Bearer $token\"/" events/session-me.json)
    expect '"statusCode": 200.*Ada Lovelace'
}

# What is sent, and that the routes lead where API Gateway's lead.
request_the_api() {
    local port response
    port=$(free_port)
    scripts/sam.sh local start-api --port "$port" >"$folder/sam.log" 2>&1 &
    jobs="$! $jobs"
    wait_for "Running on http" "$folder/sam.log" $!

    request "$port" /signup -d '{"name":"Grace Hopper","phone_number":"+14155552673"}'
    expect 'OTP sent successfully.* 200$'
    request "$port" /verify -d '{"otp":"000000","phone_number":"+14155552674"}'
    expect ' 401$'
    request "$port" /.well-known/jwks.json
    expect '"keys".* 200$'
    request "$port" /nothing
    expect ' 404$'
}

invoke() { # the function, and options
    response=$(scripts/sam.sh local invoke "$@" 2>"$folder/sam.log") || true
    echo "$response"
}

request() { # the port, the path, and options
    response=$(curl --silent --show-error --write-out ' %{http_code}' -H 'Content-Type: application/json' \
        "http://127.0.0.1:$1$2" "${@:3}") || true
    echo "$response"
}

expect() { # what $response is to match
    if ! [[ $response =~ $1 ]]; then
        tail -n 50 "$folder/dev.log" "$folder/sam.log" >&2
        echo "The response does not match $1: $response" >&2
        exit 1
    fi
}

wait_for() { # what the log says, the log, the process that writes it
    until grep -qs "$1" "$2"; do
        if ! kill -0 "$3" 2>/dev/null; then
            cat "$2" >&2
            exit 1
        fi
        sleep 0.2
    done
}

free_port() {
    local port
    while port=$((10000 + RANDOM % 10000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# shellcheck disable=SC2329 # A trap calls it.
stop_all() {
    local pid
    for pid in $jobs; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$folder"
}

main

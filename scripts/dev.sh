#!/usr/bin/env bash
# Serves the endpoints on http://localhost:$PORT (9000) from the sources, rebuilding on change.
# Expects DATABASE_URL and REDIS_URL: with-services.sh starts it.
set -euo pipefail
cd "$(dirname "$0")/.."

port=${PORT:-9000}
# What is kept from one time to the next. A test has a folder of its own.
data=${DEV_DATA:-target/dev}
export SMS_PROVIDER=${SMS_PROVIDER:-log} OTP_LOCAL=${OTP_LOCAL:-1} ALLOWED_COUNTRIES=${ALLOWED_COUNTRIES:-*}
# Trying out is no attack on a range of numbers.
export LIMIT_RANGE=${LIMIT_RANGE:-off}
export TOKEN_ISSUER=${TOKEN_ISSUER:-http://localhost:$port} TOKEN_AUDIENCE=${TOKEN_AUDIENCE:-otp-auth}

main() {
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "Port $port is taken. Choose another: PORT=9001 make dev" >&2
        exit 1
    fi
    local cargo_lambda
    cargo_lambda=$(scripts/find-tool.sh cargo-lambda)
    # With these flags `cargo run`, which cargo lambda calls for each function, has nothing left to
    # build.
    cargo build --bin signup --bin verify --bin session --bin migrate --example signing_key

    mkdir -p "$data"
    keep_pepper
    keep_signing_key
    write_sam_environment
    cargo run --quiet --bin migrate -- up

    welcome $$ &
    PATH=$(dirname "$cargo_lambda"):$PATH
    # cargo lambda tells a function how many events it may take at once. The runtime takes one
    # anyway, and warns of the variable at each start.
    exec cargo lambda watch --invoke-address 127.0.0.1 --invoke-port "$port" \
        --config 'target."cfg(all())".runner = ["env", "-u", "AWS_LAMBDA_MAX_CONCURRENCY"]'
}

# Made once: with another pepper every code that is pending would turn wrong.
keep_pepper() {
    if [ -z "${OTP_PEPPER-}" ]; then
        [ -s "$data/otp-pepper" ] ||
            (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$data/otp-pepper")
        OTP_PEPPER=$(cat "$data/otp-pepper")
    fi
    export OTP_PEPPER
}

# Made once: with another key every token that somebody holds would turn invalid.
keep_signing_key() {
    if [ -z "${TOKEN_PRIVATE_KEY-}" ]; then
        if ! [ -s "$data/signing-keys.pem" ]; then
            (umask 077 && cargo run --quiet --example signing_key >"$data/signing-keys.new")
            mv "$data/signing-keys.new" "$data/signing-keys.pem"
        fi
        TOKEN_PRIVATE_KEY=$(sed '/^-.* PUBLIC/,$d' "$data/signing-keys.pem")
        TOKEN_PUBLIC_KEYS=$(sed -n '/^-.* PUBLIC/,$p' "$data/signing-keys.pem")
    fi
    export TOKEN_PRIVATE_KEY TOKEN_PUBLIC_KEYS
}

# The file that `sam local --env-vars` takes, which sets variables that the template declares.
write_sam_environment() {
    local name value variables=''
    for name in DATABASE_URL REDIS_URL SMS_PROVIDER OTP_PEPPER ALLOWED_COUNTRIES LIMIT_RANGE \
        TOKEN_ISSUER TOKEN_AUDIENCE TOKEN_PRIVATE_KEY TOKEN_PUBLIC_KEYS; do
        value=${!name-}
        case $name in DATABASE_URL | REDIS_URL) value=$(as_seen_from_container "$value") ;; esac
        value=$(printf %s "$value" | sed 's/[\\"]/\\&/g')
        variables="$variables\"$name\": \"${value//$'\n'/\\n}\", "
    done
    # The template takes these from what it creates.
    for name in SECRET_ARN DATABASE_ADMIN_SECRET_ARN SIGNUP_SECRET_ARN SIGN_IN_SECRET_ARN; do
        variables="$variables\"$name\": \"\", "
    done
    variables="$variables\"DATABASE_IAM\": \"false\", \"REDIS_IAM\": \"false\", \"REDIS_CLUSTER\": \"false\""
    rm -f "$data/env.json"
    # By this name they are for every function.
    (umask 077 && printf '{"Parameters": {%s}}\n' "$variables" >"$data/env.json")
}

# SAM runs a function in a container, whose own loopback is another one than the host's. The
# function would ask a host of any other name for TLS, which the local Postgres does not speak.
as_seen_from_container() {
    local url
    url=$(printf %s "$1" | sed -E 's#(//|@)(localhost|127\.0\.0\.1|\[::1\])([:/?]|$)#\1host.docker.internal\3#')
    case $1:$url in
        "$url:$url") ;;
        postgres*sslmode=*) ;;
        postgres*\?*) url="$url&sslmode=disable" ;;
        postgres*) url="$url?sslmode=disable" ;;
    esac
    printf %s "$url"
}

# cargo lambda starts a function at its first request. That is made here, so that nobody's own has
# to wait for it. One after the other, since they would wait for cargo's lock anyway.
welcome() { # the process that is going to be cargo lambda
    local path
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$1" 2>/dev/null || return
        sleep 0.1
    done
    for path in /signup /verify /logout; do wait_for_response "$path"; done
    print_welcome
}

# A GET, which changes nothing: the response is a 405. There is none if cargo lambda ends first.
wait_for_response() { # the path
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    read -r _ <&3
}

print_welcome() {
    cat <<END

Everything is at http://localhost:$port. Ctrl-C stops everything.

  curl -i http://localhost:$port/signup -H 'Content-Type: application/json' \\
    -d '{"name":"Ada Lovelace","phone_number":"+14155552671"}'

The code then stands in a line below that has "message":"Generated OTP". Put it in place of CODE:

  curl -i http://localhost:$port/verify -H 'Content-Type: application/json' \\
    -d '{"otp":"CODE","phone_number":"+14155552671"}'

With the access_token of the response:

  curl -i http://localhost:$port/me -H 'Authorization: Bearer ACCESS_TOKEN'

Postgres: $(without_password "$DATABASE_URL")
Redis:    $(without_password "$REDIS_URL")

END
    if ! docker version >/dev/null 2>&1; then return; fi
    cat <<END
A function as Lambda runs it, in a container, with an event (see docs/deploy.md):

  scripts/sam.sh local invoke SignupFunction -e events/signup.json

END
}

without_password() {
    printf %s "$1" | sed -E 's#//([^:/@]*):[^/]*@#//\1:…@#'
}

main

#!/usr/bin/env bash
# Runs a command beside private instances of Postgres and Redis on free loopback ports, and stops
# them when it ends, however it ends. The exit status is the command's.
#
#   scripts/with-services.sh [--data DIR] [--containers] [--sns] [--pgbouncer] COMMAND [ARGUMENT]…
#
#   --data DIR    keeps what Postgres and Redis store in DIR; without it, it is deleted at the end
#   --containers  where a Docker engine runs on this machine, both also listen on the address of its
#                 bridge, where containers reach them; with a password, which is new each time
#   --sns         also starts moto: SNS, which records every SMS and sends none, and Secrets Manager
#   --pgbouncer   also looks for PgBouncer; starting it is the command's business
#
# The command gets DATABASE_URL (of a superuser), POSTGRES (the folder of its programs), REDIS_URL
# and REDIS_SERVER (the binary); with --sns AWS_ENDPOINT_URL_SNS, AWS_ENDPOINT_URL_SECRETS_MANAGER,
# AWS_REGION and credentials; with
# --pgbouncer PGBOUNCER (the binary). A DATABASE_URL or REDIS_URL that is set already is used: then
# that server is neither installed nor started.
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd)
folder=   # what is deleted at the end
servers=  # "pid:signal" of every server that runs, the newest first
command=  # the command's process group
asked=    # set once the command was asked to end
bridge=   # the address of Docker's bridge and its mask, if the stores listen there
password= # what a container needs

main() {
    local data='' sns='' pgbouncer='' postgres='' redis_server=''
    while [ $# -gt 0 ]; do
        case $1 in
            --data) mkdir -p "$2" && data=$(cd "$2" && pwd) && shift 2 ;;
            --containers) bridge=$(find_bridge) && shift ;;
            --sns) sns=yes && shift ;;
            --pgbouncer) pgbouncer=yes && shift ;;
            --*) fail "with-services.sh: unknown option $1" ;;
            *) break ;;
        esac
    done
    [ $# -gt 0 ] || fail "usage: with-services.sh [--data DIR] [--containers] [--sns] [--pgbouncer] COMMAND [ARGUMENT]…"

    trap 'on_signal HUP 129' HUP
    trap 'on_signal INT 130' INT
    trap 'on_signal TERM 143' TERM
    trap stop_all EXIT

    # Everything is found before anything starts: an installation can take long, or fail.
    if [ -n "${DATABASE_URL-}" ]; then
        postgres=$("$scripts/find-tool.sh" --installed postgres) || true
    else
        postgres=$("$scripts/find-tool.sh" postgres)
    fi
    if [ -n "$postgres" ]; then export POSTGRES=$postgres; fi
    if [ -n "${REDIS_URL-}" ]; then
        redis_server=$("$scripts/find-tool.sh" --installed redis-server) || true
    else
        redis_server=$("$scripts/find-tool.sh" redis-server)
    fi
    if [ -n "$redis_server" ]; then export REDIS_SERVER=$redis_server; fi
    if [ -n "$pgbouncer" ]; then
        PGBOUNCER=$("$scripts/find-tool.sh" pgbouncer)
        export PGBOUNCER
    fi
    if [ -n "$sns" ]; then moto_server=$("$scripts/find-tool.sh" moto_server); fi

    choose_postgres_user
    make_folder
    if [ -n "$bridge" ]; then password=$(od -An -v -tx1 -N16 /dev/urandom | tr -d ' \n'); fi
    [ -n "${DATABASE_URL-}" ] || start_postgres "$data"
    [ -n "${REDIS_URL-}" ] || start_redis "$data"
    [ -z "$sns" ] || start_sns

    run "$@"
}

make_folder() {
    local parent=${TMPDIR:-/tmp}
    $as_postgres test -x "$parent" || parent=/tmp
    folder=$(mktemp -d "$parent/otp-auth.XXXXXX")
    chmod 711 "$folder"
}

# An engine that runs elsewhere, as Docker Desktop's does, has no bridge on this machine.
find_bridge() {
    local name
    name=$(docker network inspect bridge \
        --format '{{index .Options "com.docker.network.bridge.name"}}' 2>/dev/null) || return 0
    ip -4 -oneline address show dev "$name" 2>/dev/null |
        sed -nE 's#.* inet ([0-9.]+/[0-9]+) .*#\1#p' | head -n 1 || true
}

# Postgres refuses to run as root.
choose_postgres_user() {
    postgres_user=$(id -un)
    as_postgres=
    if [ "$(id -u)" = 0 ]; then
        command -v setpriv >/dev/null ||
            fail "Postgres does not run as root, and setpriv (of util-linux) is missing. Try as another user."
        postgres_user=nobody
        if id postgres >/dev/null 2>&1; then postgres_user=postgres; fi
        as_postgres="setpriv --reuid=$postgres_user --regid=$(id -g $postgres_user) --clear-groups"
    fi
}

start_postgres() { # the folder to keep data in, or nothing
    local data=$folder/postgres
    if [ -n "$1" ]; then
        place_postgres "$1/postgres"
        data=$(cd "$1/postgres" && pwd -P)
        set --
    else
        mkdir "$data"
        # Nothing that a test writes is worth waiting for the disk.
        set -- -c fsync=off -c synchronous_commit=off -c full_page_writes=off
    fi
    if ! [ -s "$data/data/PG_VERSION" ]; then
        if [ -n "$as_postgres" ]; then chown "$postgres_user" "$data"; fi
        # Made beside its place and then moved there, so that an interrupted initdb leaves no half
        # of it.
        rm -rf "$data/new"
        (cd / && LC_ALL=C $as_postgres "$postgres/initdb" --pgdata="$data/new" --username=postgres --auth=trust \
            --encoding=UTF8 --locale=C --no-sync) >"$folder/initdb.log" 2>&1 ||
            fail_with_log "initdb failed" "$folder/initdb.log"
        mv "$data/new" "$data/data"
    fi
    if [ -n "$bridge" ]; then
        admit_containers "$data/data"
        set -- -c listen_addresses="127.0.0.1,${bridge%/*}" -c hba_file="$folder/pg_hba.conf" "$@"
    else
        set -- -c listen_addresses=127.0.0.1 "$@"
    fi
    # shellcheck disable=SC2086 # $as_postgres is several words, or none.
    start postgres INT 'database system is ready to accept connections' \
        $as_postgres env LC_ALL=C "$postgres/postgres" -D "$data/data" -p PORT \
        -c unix_socket_directories= -c max_connections=400 \
        -c logging_collector=off -c log_destination=stderr "$@"
    export DATABASE_URL=postgres://postgres${password:+":$password"}@127.0.0.1:$port/postgres
}

# On loopback nobody is asked for the password.
admit_containers() { # the folder of Postgres' data
    printf 'host all all %s %s\n' 127.0.0.1/32 trust "$bridge" scram-sha-256 >"$folder/pg_hba.conf"
    # shellcheck disable=SC2086 # $as_postgres is several words, or none.
    (cd / && echo "ALTER ROLE postgres PASSWORD '$password'" |
        LC_ALL=C $as_postgres "$postgres/postgres" --single -D "$1" postgres) >"$folder/password.log" 2>&1 ||
        fail_with_log "Postgres took no password" "$folder/password.log"
}

# When root's Postgres user cannot enter the folder, as below /root, the data lives in another one
# that survives a reboot, and a link remembers which.
place_postgres() {
    local elsewhere
    if [ -d "$1" ]; then return; fi
    if $as_postgres test -x "$(dirname "$1")"; then
        mkdir "$1"
    else
        elsewhere=$(mktemp -d /var/tmp/otp-auth-postgres.XXXXXX)
        say "The user $postgres_user cannot enter $(dirname "$1"): Postgres keeps its data in $elsewhere"
        ln -sfn "$elsewhere" "$1"
    fi
}

start_redis() { # the folder to keep data in, or nothing
    local data=$folder save=
    if [ -n "$1" ]; then
        data=$1/redis save='60 1'
        mkdir -p "$data"
    fi
    # Other users can read a command line.
    (umask 077 && echo "requirepass \"$password\"" >"$folder/redis.conf")
    start redis TERM 'eady to accept connections' \
        "$REDIS_SERVER" "$folder/redis.conf" --port PORT --bind 127.0.0.1 ${bridge:+"${bridge%/*}"} \
        --dir "$data" --save "$save" --appendonly no
    export REDIS_URL=redis://${password:+"default:$password@"}127.0.0.1:$port
}

start_sns() {
    start sns TERM 'Running on http' "$moto_server" -H 127.0.0.1 -p PORT
    export AWS_ENDPOINT_URL_SNS=http://127.0.0.1:$port AWS_REGION=us-east-1
    export AWS_ENDPOINT_URL_SECRETS_MANAGER=$AWS_ENDPOINT_URL_SNS
    export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
    unset AWS_PROFILE AWS_SESSION_TOKEN
}

# Starts a server on a free port: the argument PORT is replaced by the number, which is then in
# $port. A port that is taken shows when the server tries it, so nobody can take it between a check
# and its use.
start() { # its name, the signal that stops it, what its log says when it is ready, the command
    local name=$1 signal=$2 ready=$3 log=$folder/$1.log tries argument pid server
    shift 3
    for ((tries = 0; tries < 20; tries++)); do
        # Below the ports that Linux and macOS hand out for outgoing connections and for port 0.
        port=$((20000 + RANDOM % 12000))
        server=()
        for argument in "$@"; do
            if [ "$argument" = PORT ]; then argument=$port; fi
            server+=("$argument")
        done
        # Job control gives a server a process group of its own: Ctrl-C reaches the command first,
        # and the servers only when it has ended.
        : >"$log"
        set -m
        "${server[@]}" >>"$log" 2>&1 </dev/null &
        pid=$!
        set +m
        servers="$pid:$signal $servers"
        if wait_until_ready "$pid" "$ready" "$log"; then return; fi
        stop "$pid" "$signal"
        servers=${servers#* }
        grep -qi 'address already in use' "$log" || fail_with_log "$name did not start" "$log"
    done
    fail "$name found no free port."
}

wait_until_ready() { # pid, what the log says, the log
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        if grep -q "$2" "$3"; then return 0; fi
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# The command has a process group of its own, too, so that a signal to this script alone, as from a
# CI system, ends the whole of it at once. It gets no terminal to read from: it is not in the
# foreground.
run() {
    local status
    set -m
    if [ -t 0 ]; then "$@" </dev/null & else "$@" & fi
    command=$!
    set +m
    while :; do
        status=0
        wait "$command" || status=$?
        kill -0 "$command" 2>/dev/null || break
    done
    exit "$status"
}

# shellcheck disable=SC2329 # A trap calls it.
on_signal() { # its name, the exit status it means
    [ -n "$command" ] || exit "$2"
    kill "-${asked:-$1}" -- "-$command" 2>/dev/null || true
    # One who asks a second time does not want to wait any longer.
    asked=KILL
}

# shellcheck disable=SC2329 # A trap calls it.
stop_all() {
    local server
    trap '' HUP INT TERM
    if [ -n "$command" ]; then kill -TERM -- "-$command" 2>/dev/null || true; fi
    for server in $servers; do stop "${server%:*}" "${server#*:}"; done
    if [ -n "$folder" ]; then rm -rf "$folder"; fi
}

stop() { # pid, signal
    local tries
    kill "-$2" "$1" 2>/dev/null || true
    for ((tries = 0; tries < 200; tries++)); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

fail_with_log() { # what happened, the log
    say "$1:"
    cat "$2" >&2
    exit 1
}

main "$@"

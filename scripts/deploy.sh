#!/usr/bin/env bash
# Builds the functions and deploys everything, with the settings of samconfig.toml.
#
# There are two decisions to make before the first deployment: the countries that get codes, and the
# name in the message. They are taken from COUNTRIES and NAME, or asked for, and kept in
# samconfig.toml. The arguments go to `sam deploy`; with --template-file nothing is built.
#
#   STAGE=dev COUNTRIES=US,CA NAME='Acme Bank' scripts/deploy.sh --region eu-central-1
set -euo pipefail
cd "$(dirname "$0")/.."

config=${SAM_CONFIG:-samconfig.toml}
stage=${STAGE:-prod}

main() {
    grep -q "^\[$stage\.deploy\.parameters\]" "$config" || fail "$config has no stage $stage."
    decide AllowedCountries "${COUNTRIES-}" '^(\*|[A-Z]{2}(,[A-Z]{2})*)$' \
        "Countries that get codes, such as US,CA,IN, or * for all: "
    decide OtpAppName "${NAME-}" '^[^"\]{1,71}$' \
        "Name in the message, such as Acme: "
    [[ " $* " == *" --template-file "* ]] || scripts/sam.sh build
    exec scripts/sam.sh deploy --config-file "$config" --config-env "$stage" "$@"
}

# Writes a decision into the stage's parameters, unless it is made already. There it stands as
# "AllowedCountries=\"US,CA\"": quoted for SAM, in a string of TOML.
decide() { # the parameter, its value if it is known, its pattern, the question
    local value=$2 in_stage="/^\[$stage\.deploy\.parameters\]/,/^]/" quote='\\"'
    if [ -z "$value" ]; then
        if ! sed -n "${in_stage}p" "$config" | grep -q "\"$1=$quote$quote\""; then return; fi
        [ -t 0 ] || fail "$1 is not decided: set COUNTRIES and NAME."
        until [[ $value =~ $3 ]]; do read -r -p "$4" value; done
    fi
    [[ $value =~ $3 ]] || fail "This cannot be $1: $value"
    value=$(printf %s "$value" | sed 's/[&|]/\\&/g')
    sed -i.old "$in_stage s|\"$1=${quote}[^\"]*$quote\"|\"$1=\\$quote$value\\$quote\"|" "$config"
    rm -f "$config.old"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

main "$@"

#!/usr/bin/env bash
# Serves the conformance fixture on 127.0.0.1 until it is signalled.
#
#   conformance/serve.sh --port PORT [--data-dir DIR] [--config FILE]
#
# Without --config it is conformance/fixture/config.yaml that is served. Without --data-dir the databases live in a temporary directory that is removed at the end.
set -euo pipefail

usage() {
    echo "usage: $0 --port PORT [--data-dir DIR] [--config FILE]" >&2
    exit 2
}

port='' data='' config=''
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=${2-}; shift 2 || usage ;;
        --port=*) port=${1#*=}; shift ;;
        --data-dir) data=${2-}; shift 2 || usage ;;
        --data-dir=*) data=${1#*=}; shift ;;
        --config) config=${2-}; shift 2 || usage ;;
        --config=*) config=${1#*=}; shift ;;
        *) usage ;;
    esac
done
[[ $port =~ ^[0-9]+$ ]] || usage

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
child=''

# This shell stays in front of what it starts, passes signals on and cleans up behind it. With set -m the child has
# its own process group, so that Ctrl-C at a terminal reaches it once.
set -m
stopping='' caught=''
forward() {
    stopping=1 caught=1
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
}
trap 'rm -rf "$work"' EXIT
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

# run starts a command and waits for its end; a trapped signal ends wait early, not the command.
run() {
    "$@" &
    child=$!
    local status
    while :; do
        caught='' status=0
        wait "$child" || status=$?
        [ -n "$caught" ] || break
    done
    child=''
    return "$status"
}

# An interrupted build leaves files behind, in $work.
run env TMPDIR="$work" go -C "$here/.." build -o "$work/refserver" ./cmd/refserver
[ -z "$stopping" ] || exit 1
run "$work/refserver" serve --listen "127.0.0.1:$port" --data-dir "${data:-$work/data}" --config "${config:-$here/fixture/config.yaml}"

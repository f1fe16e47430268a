#!/usr/bin/env bash
# The whole story in one command: a good release, one that breaks the gateway, and the way back, looked at from outside. Takes about
# three minutes. Works in a copy, and takes away what it made.
#
# Uses the Docker Engine that answers; where none does, it starts one of its own (as root). Needs Docker, Compose, curl and Rust.
# environment: RIPCORD, the program (by default the one of PATH, else it is built); KEEP=1 leaves the copy, to look at its record
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

if [ -z "${RIPCORD:-}" ] && ! RIPCORD=$(command -v ripcord); then
    say "building ripcord"
    (cd "$here/../.." && cargo build --release -q -p ripcord)
    RIPCORD=$(cd "$here/../.." && cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/ripcord
fi

work=$(mktemp -d)
load='' engine=''
finish() {
    trap - EXIT
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    if [ -n "$engine" ]; then
        exec 9>&-
        wait "$engine" || true
    elif [ -f "$work/platform/compose.sh" ]; then
        (cd "$work/platform" && . ./compose.sh && compose down --timeout 1 >/dev/null 2>&1) || true
    fi
    if [ -n "${KEEP:-}" ]; then echo "its record is in $work/platform"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$work/platform"
tar -C "$here" --exclude .ripcord -cf - . | tar -C "$work/platform" -xf -
cd "$work/platform"

if ! docker version >/dev/null 2>&1; then
    say "no Docker Engine answers: starting one of its own"
    mkfifo "$work/open"
    ./engine.sh "$work/engine" <"$work/open" &
    engine=$!
    exec 9>"$work/open" # It serves until this is closed.
    export DOCKER_HOST=unix://$work/engine/docker.sock
    for _ in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.2; done
    docker version >/dev/null 2>&1 || fail "no Engine comes up: $(tail -n 1 "$work/engine/log")"
fi
. ./compose.sh

say "building the images: v1.0.0, and v1.1.0 in which the gateway fails 30 of 100 requests"
service/build.sh v1.0.0
service/build.sh v1.1.0 l09-api-gateway:30
service/build.sh stand-in
docker tag agentic-platform/service:stand-in agentic-platform/infrastructure:1

say "infrastructure, which stays as it is from here on"
compose up -d postgres redis 2>&1
infrastructure=$(compose ps -q postgres redis | sort)

service/build/service load 127.0.0.1:8009 9>&- &
load=$!

# What somebody outside finds: the gateway's version, and how many of 100 requests fail.
outside() {
    local failed=0
    for _ in $(seq 100); do
        [ "$(curl -s -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1:8009/)" = 200 ] || failed=$((failed + 1))
    done
    echo "$(curl -s -m 10 http://127.0.0.1:8009/version), $failed of 100 requests failed"
}

say "ripcord deploy --version v1.0.0 -- ./deploy.sh v1.0.0"
"$RIPCORD" deploy --version v1.0.0 -- ./deploy.sh v1.0.0 9>&-
echo "from outside: $(outside)"

say "ripcord deploy --version v1.1.0 -- ./deploy.sh v1.1.0"
code=0
"$RIPCORD" deploy --version v1.1.0 -- ./deploy.sh v1.1.0 9>&- || code=$?
[ $code = 6 ] || fail "exit code $code, not 6 (deployed, went bad, and was taken back)"
found=$(outside)
echo "from outside: $found"
[[ $found == *'"version":"v1.0.0"}'*' 0 of 100'* ]] || fail "the gateway is not as it was"
[ "$(compose ps -q postgres redis | sort)" = "$infrastructure" ] || fail "infrastructure was touched"
echo "PostgreSQL and Redis: the containers that they were"

say "v1.1.0 is kept out"
code=0
"$RIPCORD" deploy --version v1.1.0 -- ./deploy.sh v1.1.0 9>&- || code=$?
[ $code = 4 ] || fail "exit code $code, not 4 (refused)"

say "the timeline, from the report of the run"
run=$("$RIPCORD" log | grep -o 'run-[0-9]*' | tail -n 1)
"$RIPCORD" report "$run" --out "$work/report.md"
sed -n '/^## Timeline/,/^## Decision/p' "$work/report.md" | sed '$d' | cut -c 1-150

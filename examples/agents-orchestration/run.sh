#!/usr/bin/env bash
# The story in one command: a good release; code that does not start; a configuration that is no JSON; state that is corrupt, which a
# person takes back; and a bad release on the green side of two. Looked at from outside all the while. Takes about five minutes after
# the machine's image was made. Works in a copy, and takes away what it made, but for that image.
#
# Uses the Docker Engine that answers; where none does, it starts one of its own. Needs root (for the image, and for an Engine of its
# own), Docker, debootstrap, OpenSSH, git, python3, curl and Rust.
# environment: RIPCORD, the program (by default the one of PATH, else it is built); MACHINE_IMAGE, where the image is kept (by default
# in ~/.cache); KEEP=1 leaves the copy, to look at its record
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
engine=''
finish() {
    trap - EXIT
    rm -f "$work/agents/users"
    if [ -n "$engine" ]; then
        exec 9>&-
        wait "$engine" || true
    else
        docker rm --force --volumes ripcord-agents >/dev/null 2>&1 || true
        docker network rm ripcord-agents >/dev/null 2>&1 || true
    fi
    if [ -n "${KEEP:-}" ]; then echo "its record is in $work/agents"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$work/agents"
tar -C "$here" --exclude .ripcord -cf - . | tar -C "$work/agents" -xf -
cd "$work/agents"

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

say "a machine with systemd, reached over SSH, and on it v1.0.0 as it was deployed before there was Ripcord"
./setup.sh 2>&1 9>&-
./users.sh 9>&- &

# What somebody outside finds: what answers, and how many of 20 tasks fail.
outside() {
    local failed=0 url
    url=http://127.0.0.1:$(cat port)
    for _ in $(seq 20); do
        [ "$(curl -s -m 10 -o /dev/null -w '%{http_code}' "$url/run")" = 200 ] || failed=$((failed + 1))
    done
    echo "$(curl -s -m 10 "$url/health"), $failed of 20 tasks failed"
}
good='{"status": "ok", "version": "v1.0.0", "orchestra": "1.0.0"}, 0 of 20 tasks failed'
expect() { # exit code, and that it is as it was
    [ "$code" = "$1" ] || fail "exit code $code, not $1"
    local found
    found=$(outside)
    echo "from outside: $found"
    [ "$found" = "$good" ] || fail "it is not as it was"
}
deploy() { # version, command...
    say "ripcord deploy --version $1 -- ${*:2}"
    code=0
    "$RIPCORD" deploy --version "$1" -- "${@:2}" 9>&- || code=$?
}

deploy v1.0.0 ./deploy.sh v1.0.0
expect 0
for _ in 1 2 3; do curl -s -m 10 "http://127.0.0.1:$(cat port)/advance"; done

# Code: it passes its tests and does not start. Back go the code and the library that it wants.
deploy v1.1.0 ./deploy.sh v1.1.0
expect 6

# Configuration: one comma too few.
deploy v1.0.0-config.2 ./configure.sh '{ "agents": { "writer": { "model": "large-1" } "reviewer": { "model": "small-1" } } }'
expect 6

# State: no release did this, and nothing but a person may give up what the agents did since.
say "the workflow's state is cut off in the middle"
there() { ssh -F ssh_config app "$@"; }
there 'cd /srv/agents/artefacts && head -c 9 workflow.json >torn && mv torn workflow.json'
echo "from outside: $(outside)"
say "ripcord rollback --to v1.0.0 --strategy state"
"$RIPCORD" rollback --to v1.0.0 --strategy state --reason 'the workflow cannot be read' --dry-run
code=0
"$RIPCORD" rollback --to v1.0.0 --strategy state --reason 'the workflow cannot be read' --yes --confirm 'CONFIRM DATA LOSS' || code=$?
expect 0
there 'ls -d /srv/agents/failed-*/*; cat /srv/agents/artefacts/workflow.json'

# Blue and green: the last known good still stands, so going back is a link, and nothing stops.
say "the same with two sides: blue serves v1.0.0, and green is to have v1.4.0"
blue-green/setup.sh v1.0.0 2>&1
ripcord_sides() { (cd blue-green && "$RIPCORD" "$@" 9>&-); }
code=0
ripcord_sides deploy --version v1.0.0 -- true || code=$?
expect 0
code=0
ripcord_sides deploy --version v1.4.0 -- ./deploy.sh v1.4.0 || code=$?
expect 6
there 'readlink /srv/sides/live; systemctl is-active side@blue.service side@green.service'

say "the timeline, from the report of the first rollback"
run=$("$RIPCORD" log | grep -o 'run-[0-9]*' | sort -u -t - -k 2n | sed -n 1p)
"$RIPCORD" report "$run" --out "$work/report.md"
sed -n '/^## Timeline/,/^## Decision/p' "$work/report.md" | sed '$d' | cut -c 1-150

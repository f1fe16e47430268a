#!/usr/bin/env bash
# Takes eleven services on Docker Compose back completely, in three ways, and prints the times and their ratios:
#
#   bare      `compose up -d` with the former version's tag: all of them recreated, each waiting for the health of what it needs;
#   ripcord   `ripcord rollback` of the same two releases: proven, captured, recreated, started in order, checked;
#   runbook   stop; up in five groups, with sleeps of 10, 10, 10, 10, 10 and 30 seconds between them, as runbooks have it.
#
# use: benches/compose-stack.sh        as root where no Docker Engine answers: then it starts one of its own
# environment: RUNS=3, how often bare and ripcord are timed, one after the other (the medians count); RIPCORD, the program
#
# Nothing else should run on the machine. The services are those of examples/agentic-platform.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-3}
say() { echo "== $*" >&2; }

if [ -z "${RIPCORD:-}" ]; then
    say "building"
    cargo build --release -q -p ripcord
    RIPCORD=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/ripcord
fi

work=$(mktemp -d)
engine=''
finish() {
    trap - EXIT
    if [ -n "$engine" ]; then
        exec 9>&-
        wait "$engine" || true
    elif [ -f "$work/platform/compose.sh" ]; then
        (cd "$work/platform" && . ./compose.sh && compose down --timeout 1 >/dev/null 2>&1) || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir "$work/platform"
tar -C examples/agentic-platform --exclude .ripcord -cf - . | tar -C "$work/platform" -xf -
cd "$work/platform"
if ! docker version >/dev/null 2>&1; then
    mkfifo "$work/open"
    ./engine.sh "$work/engine" <"$work/open" &
    engine=$!
    exec 9>"$work/open" # It serves until this is closed.
    export DOCKER_HOST=unix://$work/engine/docker.sock
    for _ in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.2; done
fi
. ./compose.sh
read -ra services <<<"${GROUPS_IN_ORDER[*]}"
say "with $("${PROGRAM[@]}" version --short 2>/dev/null || echo "an unknown Compose")"

service/build.sh v1.0.0 >/dev/null
service/build.sh v1.1.0 >/dev/null
service/build.sh stand-in >/dev/null
docker tag agentic-platform/service:stand-in agentic-platform/infrastructure:1

# deployed VERSION: all of it, and healthy.
deployed() {
    setting TAG "$1"
    compose up -d >/dev/null 2>&1
    healthy "${services[@]}"
}

# all_at VERSION: what was timed really happened.
all_at() {
    local service image
    image=$(docker images --no-trunc -q "agentic-platform/service:$1")
    for service in "${services[@]}"; do
        [ "$(docker inspect --format '{{.Image}}' "$(compose ps -q "$service")")" = "$image" ] ||
            { echo "$service is not at $1" >&2; exit 1; }
    done
}

# timed NAME COMMAND...: the seconds it takes, into a file.
timed() {
    local name=$1 began ended
    shift
    began=$(date +%s.%N)
    "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
    ended=$(date +%s.%N)
    awk -v b="$began" -v e="$ended" 'BEGIN { printf "%.2f\n", e - b }' | tee -a "$work/$name" >&2
    all_at v1.0.0
}
median() { sort -n "$work/$1" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# `up` returns when the last ones have started, and a rollback when they are healthy too.
bare() {
    setting TAG v1.0.0
    compose up -d
    healthy "${services[@]}"
}

rollback() { "$RIPCORD" rollback --strategy complete --to v1.0.0 --yes --no-watch --reason "a benchmark"; }

runbook() {
    local group
    compose stop "${services[@]}"
    setting TAG v1.0.0
    sleep 10
    for group in "${!GROUPS_IN_ORDER[@]}"; do
        read -ra some <<<"${GROUPS_IN_ORDER[$group]}"
        compose up -d --no-deps "${some[@]}"
        [ "$group" = 4 ] || sleep 10
    done
    sleep 30
}

say "two releases"
deployed v1.0.0
"$RIPCORD" release record v1.0.0 >/dev/null 2>&1
"$RIPCORD" release mark v1.0.0 --good --why "a benchmark" >/dev/null 2>&1
for run in $(seq "$runs"); do
    deployed v1.1.0
    say "bare, $run of $runs, in seconds"
    timed bare bare
    deployed v1.1.0
    # Somebody deploys: that is recorded, and not what is timed.
    "$RIPCORD" release record "v1.1.$run" >/dev/null 2>&1
    say "ripcord, $run of $runs"
    timed ripcord rollback
    # Its watch is carried to its end, which nobody waits for.
    "$RIPCORD" resume >/dev/null 2>&1
done
deployed v1.1.0
say "the runbook's own script, once"
timed runbook runbook

awk -v b="$(median bare)" -v r="$(median ripcord)" -v k="$(median runbook)" 'BEGIN {
    printf "bare compose up -d, to healthy\t%.1f s\n", b
    printf "ripcord, complete rollback\t%.1f s\t%.2f x bare\t<= 1.15 x\n", r, r / b
    printf "the runbook with its sleeps\t%.1f s\t%.2f x bare\t%.2f x ripcord\n", k, k / b, k / r }'

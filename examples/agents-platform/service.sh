#!/usr/bin/env bash
# Starts and stops one of the two processes, and says which one runs: `./service.sh start|stop|instance api|worker`.
#
# A process that ends is begun again a second later, and `logs/ends.log` has how it ended (137: killed, as when memory runs out).
set -euo pipefail
cd "$(dirname "$0")"
name=$2

# The number and the start time of the keeper, nothing when none runs: a number alone may be another's by now.
instance() {
    local pid
    pid=$(cat "run/$name.keeper" 2>/dev/null) || return 0
    [ "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)" = "bash $PWD/service.sh keep $name " ] || return 0
    echo "$pid $(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)"
}

start() {
    [ -z "$(instance)" ] || return 0
    rm -f "run/$name.keeper"
    setsid bash "$PWD/service.sh" keep "$name" </dev/null >>"logs/$name.log" 2>&1 &
    until [ -n "$(instance)" ]; do sleep 0.05; done
}

stop() {
    local found deadline=$((SECONDS + 30))
    found=$(instance)
    [ -n "$found" ] || return 0
    kill "${found% *}" 2>/dev/null || true
    while [ -n "$(instance)" ]; do
        if [ $SECONDS -ge $deadline ]; then
            echo "$name does not end: killed" >&2
            kill -9 -- "-${found% *}" 2>/dev/null || true
        fi
        sleep 0.05
    done
}

keep() {
    local child='' code
    echo $$ >"run/$name.keeper.new"
    mv "run/$name.keeper.new" "run/$name.keeper"
    trap '[ -z "$child" ] || { kill "$child" 2>/dev/null; wait "$child" || true; }; exit 0' TERM
    export ENV_FILE=$PWD/.env FLAGS_FILE=$PWD/flags.json PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
    while :; do
        (cd app && exec ../venv/bin/python -m "agents.$name") &
        child=$!
        echo "$child" >"run/$name.pid"
        code=0
        wait "$child" || code=$?
        echo "$(date -u +%FT%TZ) $name ended with $code" >>logs/ends.log
        sleep 1
    done
}

"$1"

#!/usr/bin/env bash
# The service as a plain process: its number is in service.pid, what it prints in logs/service.log.
#
# use: service.sh start | stop | instance
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh

# The process that runs, told from any other that may have had its number: by when it was started.
instance() {
    local pid
    pid=$(cat service.pid 2>/dev/null) || return 0
    grep -qsF service.py "/proc/$pid/cmdline" || return 0
    sed "s/.*) //" "/proc/$pid/stat" 2>/dev/null | cut -d ' ' -f 20 | sed "s/^/$pid@/"
}

case $1 in
instance) instance ;;
start)
    here=$PWD
    (cd current && exec setsid "$here/venv/bin/python" -B service.py >>"$here/logs/service.log" 2>&1 </dev/null 9>&-) &
    echo $! >service.pid
    ;;
stop)
    running=$(instance)
    [ -n "$running" ] || exit 0
    kill "${running%@*}"
    gone() { [ -z "$(instance)" ]; }
    waits "the service ends" gone
    ;;
esac

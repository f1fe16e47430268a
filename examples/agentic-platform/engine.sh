#!/usr/bin/env bash
# A Docker Engine of its own for this example, as root: its data, its socket and its networks are nobody else's. It serves until its
# input is closed, and then takes everything away that it made.
#
# use: engine.sh DIRECTORY      DOCKER_HOST is then unix://DIRECTORY/docker.sock
set -u
dir=$1
mkdir -p "$dir"
export DOCKER_HOST=unix://$dir/docker.sock
dockerd --data-root "$dir/data" --exec-root "$dir/exec" --host "$DOCKER_HOST" --pidfile "$dir/pid" --bridge none \
    --default-address-pool base=10.219.0.0/16,size=26 >"$dir/log" 2>&1 </dev/null &
engine=$!
trap '' INT TERM HUP
cat >/dev/null
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1
docker network prune --force >/dev/null 2>&1
kill -TERM $engine
wait $engine
for mount in $(grep -F " $dir/" /proc/self/mountinfo | cut -d ' ' -f 5); do umount -l "$mount"; done
rm -rf "$dir"

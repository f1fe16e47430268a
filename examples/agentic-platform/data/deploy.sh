#!/usr/bin/env bash
# How this team deploys: the release beside the others, its migrations, then the service from the new release. Where a migration fails, the
# service stays as it is. Knows nothing of Ripcord.
#
# use: ./deploy.sh VERSION
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
version=$1
link() { # NAME TARGET
    ln -sfn "$2" "$1.new"
    mv -T "$1.new" "$1"
}
if [ ! -e "releases/$version" ]; then
    # Each of versions/ has what changed since the one before it.
    mkdir -p "releases/.$version"
    for each in $(ls versions | sort -V); do
        cp -R "versions/$each/." "releases/.$version"
        [ "$each" != "$version" ] || break
    done
    mv "releases/.$version" "releases/$version"
fi
link schema "releases/$version"
log=$PWD/logs/migrations.log
(cd schema && PYTHONDONTWRITEBYTECODE=1 ../../venv/bin/alembic upgrade head >"$log" 2>&1) || { tail -n 4 "$log" >&2; exit 1; }
link current "releases/$version"
./service.sh stop
./service.sh start
well() { curl -sf -m 5 "http://127.0.0.1:$PORT/health" | grep -qF "\"version\": \"$version\""; }
waits "$version is healthy" well

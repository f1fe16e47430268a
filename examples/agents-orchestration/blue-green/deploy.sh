#!/usr/bin/env bash
# Deploys a version to the side that serves nobody, and lets it serve once it answers. The other side goes on running. Knows nothing of
# Ripcord.
#
# use: blue-green/deploy.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/.."
. ./names.sh
there "$1" <<'END'
version=$1
cd /srv/sides
if [ "$(readlink live)" = slots/blue ]; then idle=green port=8002; else idle=blue port=8001; fi
git -C /srv/agents/app fetch -q --tags origin
rm -rf "slots/$idle"
mkdir "slots/$idle"
git -C /srv/agents/app archive "$version" | tar -x -C "slots/$idle"
(cd "slots/$idle" && /srv/agents/venv/bin/python -B -m unittest -q)
systemctl restart "side@$idle.service"
deadline=$((SECONDS + 20))
asks='import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=1).read().decode())'
until python3 -c "$asks" "http://127.0.0.1:$port/health" 2>/dev/null | grep -q "\"$version\""; do
    [ $SECONDS -lt $deadline ] || { echo "$version does not answer on the $idle side" >&2; exit 1; }
    sleep 0.1
done
ln -sfn "slots/$idle" live.new
mv -T live.new live
END

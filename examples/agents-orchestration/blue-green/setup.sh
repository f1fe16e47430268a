#!/usr/bin/env bash
# Two sides of the same application on the machine, and a door that passes requests to the one that the link `live` leads to. They
# share configuration, packages and state. What served alone before is stopped.
#
# use: blue-green/setup.sh VERSION      after ./setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. ./names.sh
there <<'END'
mkdir -p /srv/sides/slots
systemctl disable -q --now agents.service
END
scp -q -F ssh_config blue-green/front.py app:/srv/sides/
scp -q -F ssh_config blue-green/front.service blue-green/side@.service app:/etc/systemd/system/
there "$1" <<'END'
cd /srv/sides
echo PORT=8001 >blue.env
echo PORT=8002 >green.env
for side in blue green; do
    mkdir "slots/$side"
    git -C /srv/agents/app archive "$1" | tar -x -C "slots/$side"
done
ln -s slots/blue live
systemctl daemon-reload
systemctl enable -q --now side@blue.service side@green.service front.service
deadline=$((SECONDS + 20))
for port in 8000 8001 8002; do
    until python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "nothing answers at $port" >&2; exit 1; }
        sleep 0.1
    done
done
END

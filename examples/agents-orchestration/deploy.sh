#!/usr/bin/env bash
# Deploys a version as the team always did: a tag of what was there, the checkout, an environment with its requirements, the tests, and
# a restart. Knows nothing of Ripcord.
#
# use: ./deploy.sh VERSION
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
there "$1" <<'END'
version=$1
cd /srv/agents
git -C app fetch -q --tags origin
before=backup-$(date -u +%Y%m%d-%H%M%S)
git -C app tag -a "$before" -m "before $version"
git -C app push -q origin "$before"
git -C app checkout -q --detach "$version"
if [ ! -e "venvs/$version" ]; then
    python3 -m venv "venvs/$version"
    "venvs/$version/bin/pip" install -q --no-index --find-links /srv/shared/wheels -r app/requirements.txt
fi
(cd app && "../venvs/$version/bin/python" -B -m unittest -q)
ln -sfn "venvs/$version" venv.new
mv -T venv.new venv
systemctl restart agents.service
END

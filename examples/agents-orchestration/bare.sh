#!/usr/bin/env bash
# What a bare machine needs before Ripcord can do the rest: directories, the clone, and the script that keeps the state. Packages are
# in the image. Nothing in here knows a version.
set -euo pipefail
. ./names.sh
there <<'END'
mkdir -p /srv/agents/config /srv/agents/logs /srv/agents/venvs
cd /srv/agents
git config --global user.name Deployer
git config --global user.email deployer@example.com
git config --global --add safe.directory '*'
git clone -q /srv/shared/git/agents.git app
git -C app checkout -q --detach origin/main
END
scp -q -F ssh_config machine/state.sh app:/srv/agents/

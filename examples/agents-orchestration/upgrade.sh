#!/usr/bin/env bash
# Installs a package into the environment that is in use, by hand as it were, and restarts the service. Knows nothing of Ripcord.
#
# use: ./upgrade.sh PACKAGE==VERSION
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
there "$1" <<'END'
cd /srv/agents
venv/bin/pip install -q --no-index --find-links /srv/shared/wheels "$1"
systemctl restart agents.service
END

#!/usr/bin/env bash
# Replaces the agents' configuration by what it is given, and restarts the service. Looks at nothing, and knows nothing of Ripcord.
#
# use: ./configure.sh JSON
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
there "$1" <<'END'
cd /srv/agents
printf '%s\n' "$1" >config/agents.json
systemctl restart agents.service
END

#!/usr/bin/env bash
# Sets keys of .env, and has pm2 start or reload the application with them. It knows nothing of Ripcord.
#   ./configure.sh ENABLE_MCP_TRACKING=true
set -euo pipefail
cd "$(dirname "$0")"
for setting in "$@"; do
    if grep -q "^${setting%%=*}=" .env; then sed -i "s|^${setting%%=*}=.*|$setting|" .env; else echo "$setting" >>.env; fi
done
export PM2_HOME=$PWD/.pm2
exec tools/node_modules/.bin/pm2 startOrReload ecosystem.config.js --update-env --silent

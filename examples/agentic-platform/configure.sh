#!/usr/bin/env bash
# Changes settings in .env.production, and recreates the services that read it.
#
# use: ./configure.sh KEY=VALUE...
set -euo pipefail
cd "$(dirname "$0")"
. ./compose.sh
for pair in "$@"; do setting "${pair%%=*}" "${pair#*=}"; done
compose up -d --no-deps l09-api-gateway l11-integration 2>&1
healthy l09-api-gateway l11-integration

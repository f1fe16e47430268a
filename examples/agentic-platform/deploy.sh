#!/usr/bin/env bash
# Deploys a version: its tag into .env.production, and each group of services when the one before it is healthy. Knows nothing of Ripcord.
#
# use: ./deploy.sh VERSION
set -euo pipefail
cd "$(dirname "$0")"
. ./compose.sh
setting TAG "$1"
for group in "${GROUPS_IN_ORDER[@]}"; do
    read -ra services <<<"$group"
    compose up -d --no-deps "${services[@]}" 2>&1
    healthy "${services[@]}"
done

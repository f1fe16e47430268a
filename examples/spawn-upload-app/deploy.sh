#!/usr/bin/env bash
# How this team deploys: the code of a tag, its packages, then its settings and a reload (./configure.sh). It knows nothing of Ripcord.
#   ./deploy.sh v1.1.0 ENABLE_PARALLEL_UPLOADS=true
set -euo pipefail
cd "$(dirname "$0")"
version=$1
shift
[ -d app ] || git clone -q origin app
git -C app fetch -q --tags
git -C app checkout -q --detach "$version"
(cd app && npm ci --omit=dev --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error)
exec ./configure.sh "$@"

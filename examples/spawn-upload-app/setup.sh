#!/usr/bin/env bash
# What there is before the first deployment: pm2, directories for data and logs, and the repository of the application in `origin`, with a
# commit and a tag for each of versions/, each laid over the one before.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .swarm logs uploads tools
npm install --prefix tools --no-audit --no-fund --loglevel=error pm2@7.0.4
git init -q -b main origin
for version in $(ls versions | sort -V); do
    # Not with their times: git takes a file of the same size and time for the same.
    cp -R "versions/$version/." origin/
    git -C origin add -A
    git -C origin -c user.name=release -c user.email=release@example.org commit -qm "$version"
    git -C origin tag "$version"
done

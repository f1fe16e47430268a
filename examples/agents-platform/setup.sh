#!/usr/bin/env bash
# What there is before the first deployment: the packages, and the repository of the application in `origin`, with a commit and a tag for
# each of versions/. Each is laid over the version that it comes from.
#
# environment: VENV, a virtual environment that has the packages already, or where it is to be made
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p logs run
touch logs/ends.log
venv=${VENV:-$PWD/venv}
if [ ! -e "$venv/ready" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check --only-binary=:all: -r requirements.txt
    touch "$venv/ready"
fi
[ -e venv ] || ln -s "$venv" venv

git init -q -b main origin
while read -r version from; do
    [ -z "$from" ] || git -C origin checkout -q --detach "$from"
    # Not with their times: git takes a file of the same size and time for the same.
    cp -R "versions/$version/." origin/
    git -C origin add -A
    git -C origin -c user.name=release -c user.email=release@example.org commit -qm "$version"
    git -C origin tag "$version"
done <<'VERSIONS'
v1.0.0
v1.1.0 v1.0.0
v1.2.0 v1.1.0
v1.2.1 v1.2.0
v1.3.0 v1.2.1
v1.4.0 v1.2.1
v1.5.0 v1.2.1
VERSIONS

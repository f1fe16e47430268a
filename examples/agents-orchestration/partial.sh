#!/usr/bin/env bash
# Takes one file of the application to what it was in a commit, runs its test, and commits and tags that. Knows nothing of Ripcord.
#
# use: ./partial.sh FILE COMMIT TEST TAG
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
there "$@" <<'END'
cd /srv/agents/app
git checkout -q "$2" -- "$1"
../venv/bin/python -B -m unittest -q "$3"
git commit -q -m "$1 as it was in $2"
git tag -a "$4" -m "$1 as it was in $2"
git push -q origin "$4"
systemctl restart agents.service
END

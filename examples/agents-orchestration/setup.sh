#!/usr/bin/env bash
# The repository and the wheels, which stand for a Git server and a package index; the machine; and on it v1.0.0, as it was before there
# was Ripcord.
#
# use: ./setup.sh      in a copy of this directory
set -euo pipefail
. ./names.sh
mkdir -p shared
python3 wheels.py shared/wheels
git init -q --bare -b main shared/git/agents.git
git init -q -b main source
(
    cd source
    git config user.name Team
    git config user.email team@example.com
    for version in v1.0.0 v1.1.0 v1.2.0 v1.3.0 v1.4.0; do
        # Each from v1.0.0: what went bad is not built upon.
        [ $version = v1.0.0 ] || git checkout -q -B main v1.0.0
        cp -R "../versions/$version/." .
        if [ -e sed ]; then sed -i -f sed service.py; rm sed; fi
        git add -A
        git commit -q -m $version
        git tag -a $version -m $version
    done
    git push -q --tags ../shared/git/agents.git v1.0.0^{}:refs/heads/main
)
./host.sh
./bare.sh
scp -q -F ssh_config machine/agents.json app:/srv/agents/config/
scp -q -F ssh_config machine/env app:/srv/agents/.env
scp -q -F ssh_config machine/agents.service app:/etc/systemd/system/
there <<'END'
cd /srv/agents
chmod 600 .env
mkdir -p artefacts
echo '{"steps": 0}' >artefacts/workflow.json
systemctl enable -q agents.service
END
./deploy.sh v1.0.0

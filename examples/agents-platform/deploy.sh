#!/usr/bin/env bash
# How this team deploys: the code of a tag, its migrations, settings (NAME=value) and flags (flag:NAME=true), then the processes anew.
# It knows nothing of Ripcord.
#   ./deploy.sh v1.1.0 flag:summaries=true
set -euo pipefail
cd "$(dirname "$0")"
version=$1
shift
[ -d app ] || git -c advice.detachedHead=false -c init.defaultBranch=main clone -q origin app
git -C app fetch -q --tags
git -C app checkout -q --detach "$version"
for setting in "$@"; do
    case $setting in
    flag:*)
        setting=${setting#flag:}
        sed -i "s/\"${setting%%=*}\": [a-z]*/\"${setting%%=*}\": ${setting#*=}/" flags.json
        ;;
    *) if grep -q "^${setting%%=*}=" .env; then sed -i "s|^${setting%%=*}=.*|$setting|" .env; else echo "$setting" >>.env; fi ;;
    esac
done
(cd app && PYTHONDONTWRITEBYTECODE=1 MIGRATIONS_URL=$(cat ../secrets/migrations-url) ../venv/bin/alembic upgrade head)
./service.sh stop worker
./service.sh stop api
./service.sh start api
./service.sh start worker

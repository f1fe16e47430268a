#!/usr/bin/env bash
# The story in one command: a good release, and five that go bad, each taken back by the procedure that fits: a flag; the code alone;
# a migration down one step; the database restored; everything. Real PostgreSQL, Redis and Alembic; looked at from outside all the
# while. Takes about six minutes. Works in a copy, and takes away what it made.
#
# Needs PostgreSQL 15 or newer and redis-server (their programs; it starts servers of its own), Python 3.11 with venv and pip with a
# registry, git, curl and Rust.
# environment: RIPCORD, the program (by default the one of PATH, else it is built); VENV, where the virtual environment is kept (by
# default it is made anew); KEEP=1 leaves the copy, to look at its record
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

if [ -z "${RIPCORD:-}" ] && ! RIPCORD=$(command -v ripcord); then
    say "building ripcord"
    (cd "$here/../.." && cargo build --release -q -p ripcord)
    RIPCORD=$(cd "$here/../.." && cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/ripcord
fi

work=$(mktemp -d)
users=''
finish() {
    trap - EXIT
    [ -z "$users" ] || kill "$users" 2>/dev/null || true
    for name in worker api; do "$work/service.sh" stop "$name" 2>/dev/null || true; done
    "$work/servers.sh" stop 2>/dev/null || true
    if [ -n "${KEEP:-}" ]; then echo "its record is in $work"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

tar -C "$here" --exclude-from "$here/.gitignore" -cf - . | tar -C "$work" -xf -
cd "$work"
# Ports that nobody has, held together so that they differ.
read -r port postgres redis < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in held))')
sed -i "s/8400/$port/; s/5544/$postgres/; s/6399/$redis/" .env ripcord.yaml
url=http://127.0.0.1:$port

# What the server has, whoever's it is.
sql() { PGPASSFILE=secrets/pgpass psql -qAtX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$postgres" -U postgres -d platform -c "$1"; }
version() { curl -s -m 10 "$url/health" | sed -n 's/.*"version": "\([^"]*\)".*/\1/p'; }
migration() { sql 'SELECT version_num FROM alembic_version'; }
users_say() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" users.json; }
agents_of() { sql "SELECT count(*) FROM agents WHERE tenant ~ '$1'"; }
strangers() { sql 'SELECT count(*) FROM tasks JOIN agents ON agents.id = tasks.agent WHERE agents.tenant <> tasks.tenant'; }
# Holds within a minute and a half, or the rest says what is wrong.
soon() {
    local deadline=$((SECONDS + 90))
    until eval "$1"; do
        [ $SECONDS -lt $deadline ] || fail "$2"
        sleep 0.2
    done
}
outside() {
    echo "from outside: version $(version), schema $(migration), $(agents_of .) agents, $(strangers) rows of another tenant"
    for what in login run webhook tenants; do venv/bin/python check.py "$what" || fail "$what"; done
}
# Holds of what the last command said.
said() { grep -q -e "$1" said || fail "it was not said: $1"; }
ripcord() { # expected exit code, arguments...
    say "ripcord ${*:2}"
    set +e
    "$RIPCORD" "${@:2}" 2>&1 | tee said
    code=${PIPESTATUS[0]}
    set -e
    [ $code = "$1" ] || fail "exit code $code, not $1"
}
# A rollback that gives data up. Users write while its plan is looked at: where the yes came too late for the one shown, it is shown anew.
give_up() { # expected exit code, arguments...
    local tries=0
    say "ripcord rollback ${*:2} --yes --confirm 'CONFIRM DATA LOSS'"
    set +e
    while :; do
        "$RIPCORD" rollback "${@:2}" --yes --confirm 'CONFIRM DATA LOSS' 2>&1 | tee said
        code=${PIPESTATUS[0]}
        tries=$((tries + 1))
        { [ $code = 4 ] && [ $tries -lt 30 ] && grep -q 'the world has moved since' said; } || break
    done
    set -e
    [ $code = "$1" ] || fail "exit code $code, not $1"
}
deploy() { # version, expected exit code, settings...
    say "ripcord deploy --version $1 -- ./deploy.sh $1 ${*:3}"
    set +e
    "$RIPCORD" deploy --version "$1" -- ./deploy.sh "$1" "${@:3}" 2>&1 | tee said
    code=${PIPESTATUS[0]}
    set -e
    if [ "$2" = 0 ] && [ $code = 8 ]; then
        # On a machine that is too busy for enough data in time, it is a person who calls it good.
        ripcord 0 release mark "$1" --good --why 'it was looked at'
        code=0
    fi
    [ $code = "$2" ] || fail "exit code $code, not $2"
}
# The newest run.
run() { "$RIPCORD" log | grep -o 'run-[0-9]*' | sort -t - -k 2n | tail -n 1; }

say "PostgreSQL, Redis, the repository, and v1.0.0 as it was deployed before there was Ripcord"
./setup.sh
./servers.sh start
./deploy.sh v1.0.0
sql "INSERT INTO tenants SELECT name, encode(sha256(('key of ' || name)::bytea), 'hex') FROM unnest(ARRAY['acme', 'globex', 'probe']) name"
python3 users.py "$port" &
users=$!
soon '[ -s users.json ] && [ "$(users_say requests)" -gt 20 ]' "the users are not answered: $(tail -n 3 logs/api.log)"

deploy v1.0.0 0
outside

# 1. One feature: its flag is enough, and the code stays.
deploy v1.1.0 6 flag:summaries=true
outside
[ "$(version)" = 1.1.0 ] || fail "it is not v1.1.0 any more: the flag alone was to change"
soon 'curl -s -m 10 -H "x-tenant: acme" "$url/agents/1/summary" | grep "Feature disabled"' 'the feature is not off'
grep -q '"theme": "light"' flags.json || fail 'what is no flag was changed too'

# 2. Code: the migration that came with it only adds, so it stays.
deploy v1.2.0 6
outside
[ "$(version)" = 1.1.0 ] || fail "it is not at v1.1.0"
[ "$(migration)" = 0002 ] || fail "the schema was touched"
ripcord 0 plan "$(run)"
said 'schema .*stays as it is'

deploy v1.2.1 0
outside
[ "$(version) $(migration)" = '1.2.1 0002' ] || fail 'it is not v1.2.1'

# 3. A migration that code of before cannot live with: down one step. It drops a table, so a person says yes, and what is in it is kept.
deploy v1.3.0 4
said 'waits for a yes'
for _ in 1 2; do curl -s -m 10 -H 'x-tenant: acme' -d '{"name": "scout"}' "$url/agents"; echo; done
# What waits was planned before users wrote more: planned anew, and consented to at once.
ripcord 0 decline "$(run)" --reason 'planned anew'
give_up 5 --reason 'the list of tasks fails'
said '2 rows of public.agents have the same tenant, name: id'
echo "two agents of one name are in the way; schema $(migration)"
sql "UPDATE agents SET name = name || '-' || id WHERE name = 'scout'"
ripcord 0 retry "$(run)"
outside
[ "$(version) $(migration)" = '1.2.1 0002' ] || fail 'it is not at v1.2.1'
[ -z "$(sql "SELECT 1 FROM pg_tables WHERE tablename = 'task_costs'")" ] || fail 'the table is still there'
[ "$(wc -l <schema.salvage-*/public.task_costs.csv)" -gt 1 ] || fail 'what was in the table is not kept'
head -n 2 schema.salvage-*/public.task_costs.csv

# 4. Corrupted data, and no way down: the database as it was.
deploy v1.4.0 4
echo "agents of globex: $(agents_of globex), rows of another tenant: $(strangers)"
[ "$(strangers)" -gt 0 ] || fail 'v1.4.0 spoiled nothing'
ripcord 4 rollback --reason 'the tenants are mixed up' --strategy database --yes
said 'CONFIRM DATA LOSS'
ripcord 0 decline "$(run)" --reason 'planned anew'
give_up 0 --reason 'the tenants are mixed up' --strategy database
said 'rows of database'
outside
[ "$(version) $(migration)" = '1.2.1 0002' ] || fail 'it is not at v1.2.1'
[ "$(strangers)" = 0 ] || fail 'rows are still of another tenant'
[ "$(agents_of globex)" -gt 0 ] || fail 'globex has no agents'
echo 'set aside, and what was given up:'
sql "SELECT datname FROM pg_database WHERE datname LIKE 'platform_before%'" | grep . || fail 'the former database is not kept'
ls platform.salvage-*/*

# 5. Everything: the worker stands still, the settings are others, and what is cached the older code cannot read.
last=$(sql 'SELECT max(id) FROM tasks')
deploy v1.5.0 6 WORKER_QUEUE=platform:tasks:worker
outside
[ "$(version)" = 1.2.1 ] || fail 'it is not at v1.2.1'
! grep WORKER_QUEUE .env || fail 'a setting of v1.5.0 is still there'
order=$(grep -o 'done \(stop\|restore\|start\)/[a-z]*' said | sed 's/done //' | tr '\n' ' ')
echo "$order"
[[ $order =~ ^stop/worker\ stop/api\ .*start/api\ start/worker\ $ ]] || fail 'the worker is not stopped first and started last'
soon "[ \"\$(sql \"SELECT count(*) FROM tasks WHERE id > $last AND created < now() - interval '5 s' AND state = 'queued'\")\" = 0 ]" 'tasks that waited are not done'
echo "tasks given while the worker stood still: all done; the users met $(users_say failed) failures and $(users_say unanswered) unanswered of $(users_say requests) requests"

say 'v1.5.0 is kept out'
ripcord 4 release check v1.5.0

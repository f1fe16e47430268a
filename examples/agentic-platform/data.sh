#!/usr/bin/env bash
# The data of the platform in one command: settings in etcd put back exactly; code taken back with what it left in the cache, and its schema
# left alone; a migration that failed, fixed forward, taken down by one, or with the database last; and the database taken back, rows
# salvaged. Looked at from outside all the while. Takes about two minutes. Works in a copy, and takes away what it made.
#
# Needs PostgreSQL, Redis and etcd with their clients (programs only: it starts servers of its own on ports of the loopback that are free),
# Python 3 with venv and a package index, curl and Rust. Run as root it has PostgreSQL run as `postgres`.
# environment: RIPCORD, the program (by default the one of PATH, else it is built); KEEP=1 leaves the copy, to look at its record
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
chmod 711 "$work" # PostgreSQL's own user has its data in it.
users='' servers=''
finish() {
    trap - EXIT
    [ -z "$users" ] || kill "$users" 2>/dev/null || true
    if [ -n "$servers" ]; then
        exec 9>&-
        wait "$servers" || true
    fi
    if [ -n "${KEEP:-}" ]; then echo "its record is in $work/data"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

cp -R "$here/data" "$work/data"
cd "$work/data"
rm -rf .ripcord current logs releases schema secrets venv service.pid

# Five ports that nobody listens on, below those that the system gives out by itself.
ports=$(python3 -c '
import random, socket
free = []
for port in random.sample(range(20000, 30000), 100):
    with socket.socket() as each:
        if each.connect_ex(("127.0.0.1", port)):
            free.append(port)
print(*free[:5])')
read -r postgres redis etcd peer port <<<"$ports"
sed -i "s/15432/$postgres/; s/16379/$redis/; s/12379/$etcd/; s/12380/$peer/; s/8101/$port/" .env ripcord.yaml

say "PostgreSQL, Redis and etcd, and the service's tools"
mkfifo "$work/open"
setsid ./servers.sh "$work/servers" <"$work/open" & # Apart: what ends this by a signal must not end it before it has tidied up.
servers=$!
exec 9>"$work/open" # They serve until this is closed.
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check --only-binary=:all: alembic==1.20.1 'psycopg[binary]==3.3.9' redis==8.1.0
. ./names.sh
ready() { [ -e "$work/servers/ready" ] || ! kill -0 "$servers"; }
waits "the servers" ready
[ -e "$work/servers/ready" ] || fail "the servers do not start"
. ./names.sh
ripcord() { "$RIPCORD" "$@" 9>&-; }

# What is really there, by the servers' own clients.
health() { curl -s -m 10 "http://127.0.0.1:$PORT/health"; }
field() { health | sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\).*/\1/p"; }
settings() { store get --prefix config/ | paste -d= - -; }
revision() { store get "config/$1" -w fields | sed -n 's/"ModRevision" : //p'; }
schema() { sql 'SELECT version_num FROM alembic_version'; }
tasks() { sql 'SELECT count(*) FROM tasks'; }
constraints() { sql "SELECT coalesce(string_agg(conname, ',' ORDER BY conname), 'none') FROM pg_constraint WHERE conname IN ('tasks_title_not_empty', 'agents_name_unique')"; }
unanswered() { sed -n 's/.*"unanswered": \([0-9]*\).*/\1/p' users.json; }
failing() { # of 30 pages
    local n=0 each
    for each in $(seq 30); do
        [ "$(curl -s -m 10 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$PORT/agents/$((each % 3 + 1))")" = 200 ] || n=$((n + 1))
    done
    echo "$n"
}
outside() { echo "from outside: $(field version) on schema $(schema), $(tasks) tasks, $(failing) of 30 pages failed; $(settings | paste -sd' ')"; }
is() { # what, found, expected
    [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
}
deploy() { # version, command...
    say "ripcord deploy --version $1 -- ${*:2}"
    code=0
    ripcord deploy --version "$1" -- "${@:2}" || code=$?
}
# Deploys what nothing speaks against. Where a busy machine gave too little to judge it by, a person does.
deploys() {
    deploy "$@"
    [ $code != 8 ] || ripcord release mark "$1" --good --why 'it was looked at'
    [ $code = 8 ] || is "exit code" $code 0
}

say "settings; v1.0.0 as it was deployed before there was Ripcord; and what users left in it"
./configure.sh database/pool_size=10 redis/max_connections=50 features/planning=on
./deploy.sh v1.0.0
sql "INSERT INTO agents (id, name) VALUES (1, 'planner'), (2, 'coder'), (3, 'coder');
     INSERT INTO tasks (agent, title, result) SELECT n % 3 + 1, 'task ' || n, CASE WHEN n <= 200 THEN 'done' END FROM generate_series(1, 300) n"
cache mset agentic:session:ann 1 agentic:session:bob 1
venv/bin/python users.py "$PORT" 9>&- &
users=$!
there() { [ -s users.json ]; }
waits "users come" there

deploys v1.0.0 ./deploy.sh v1.0.0
outside

# Configuration: what was changed or deleted is put, what was added is deleted, what is the same is not written. Nothing is restarted.
settings=$(settings) same=$(revision features/planning) process=$(field process) turned_away=$(unanswered)
deploy v1.0.0-config.2 ./configure.sh database/pool_size=0 features/turbo=on redis/max_connections-
is "exit code" $code 6
is "the settings" "$(settings)" "$settings"
is "a setting that had not changed was written at revision" "$(revision features/planning)" "$same"
is "the process" "$(field process)" "$process"
is "requests without an answer" "$(unanswered)" "$turned_away"
outside
echo "the settings are exactly what they were; the same process serves, and every request was answered"

# Code and cache: v1.1.0 leaves pages that neither it nor v1.0.0 can read. What it migrated only adds: that stays.
deploy v1.1.0 ./deploy.sh v1.1.0
is "exit code" $code 6
is "the version" "$(field version)" v1.0.0
is "the schema" "$(schema)" 0002
is "pages that fail" "$(failing)" 0
is "sessions" "$(cache --raw keys 'agentic:session:*' | sort | paste -sd' ')" "agentic:session:ann agentic:session:bob"
outside
echo "pages were cleared and are written anew, sessions are as they were"

# A failed migration: 0003 is done, 0004 finds two agents of one name. v1.0.0 goes on serving.
deploy v1.2.0 ./deploy.sh v1.2.0
is "exit code" $code 5
is "the schema" "$(schema)" 0003
is "constraints" "$(constraints)" tasks_title_not_empty
outside
say "ripcord declare 'migration 0004 failed' --issue failed-migration"
ripcord declare 'migration 0004 failed' --issue failed-migration 2>&1 | tee said
grep -q 'decided: fix forward' said || fail "it is not said that it is to be fixed forward"
say "ripcord plan --strategy failed-migration"
ripcord plan --strategy failed-migration | tee said
grep -qE '^ +> +2 +downgrade .* none ' said || fail "going down by one is not what comes before the database, or loses something"
grep -q 'advice *fix forward' said || fail "the plan does not say that a failed migration is fixed forward first"
say "ripcord rollback --strategy failed-migration"
before=$(tasks)
ripcord rollback --strategy failed-migration --yes --reason 'the fix of 0004 takes longer than 15 min' >/dev/null
is "the schema" "$(schema)" 0002
is "constraints" "$(constraints)" none
is "tasks" "$(tasks)" "$before"
outside
echo "0003 is taken down, by the files of the release that failed; no row is lost"

# The fix, forward: of agents with one name, the later ones are given another.
deploys v1.2.1 ./deploy.sh v1.2.1
is "the schema" "$(schema)" 0004
is "constraints" "$(constraints)" agents_name_unique,tasks_title_not_empty
is "agents" "$(sql "SELECT string_agg(name, ', ' ORDER BY id) FROM agents")" "planner, coder, coder 3"
outside

# The database: v1.3.0 drops what nobody measures, and users go on writing until somebody notices.
deploys v1.3.0 ./deploy.sh v1.3.0
is "the schema" "$(schema)" 0005
for each in 1 2 3 4 5; do
    curl -sf -m 10 -o /dev/null -d "{\"agent\": 2, \"title\": \"written since, $each\"}" "http://127.0.0.1:$PORT/tasks"
done
outside
say "ripcord declare 'the results of tasks are gone' --issue data-corruption"
ripcord declare 'the results of tasks are gone' --issue data-corruption
say "ripcord rollback --strategy standard"
code=0
ripcord rollback --to v1.2.1 --strategy standard --yes 2>&1 | tee said || code=${PIPESTATUS[0]}
is "exit code" $code 4
grep -q 'restore the database to a point before it' said || fail "it is not said that only the database brings the results back"
say "ripcord rollback --to v1.2.1 --strategy database --yes"
back=(rollback --to v1.2.1 --strategy database --reason 'the results of tasks are gone' --yes)
code=0
ripcord "${back[@]}" || code=$?
is "exit code" $code 4
is "tasks" "$(tasks)" 305
say "ripcord rollback --to v1.2.1 --strategy database --yes --confirm 'CONFIRM DATA LOSS'"
ripcord "${back[@]}" --confirm 'CONFIRM DATA LOSS' >/dev/null
is "the version" "$(field version)" v1.2.1
is "the schema" "$(schema)" 0004
is "agents" "$(sql 'SELECT count(*) FROM agents')" 3
is "tasks" "$(tasks)" 300
is "tasks with a result" "$(sql 'SELECT count(result) FROM tasks')" 200
is "pages that fail" "$(failing)" 0
run=$("$RIPCORD" log | grep -o 'run-[0-9]*' | tail -n 1)
aside=agentic_platform_before_${run//-/_}
is "tasks in what was set aside" "$(sql 'SELECT count(*) FROM tasks' "$aside")" 305
outside
ls -d agentic_platform.salvage-*/*.csv
echo "$aside is kept beside it"

# What was written since comes back by hand: the file is looked at, run, and the pages of before it are cleared.
say "the rows that were given up, from the salvage of $run"
cat "agentic_platform.salvage-$run/public.tasks.csv"
as_ripcord -d agentic_platform --single-transaction --file "agentic_platform.salvage-$run/public.tasks.sql"
sql "SELECT setval(pg_get_serial_sequence('tasks', 'id'), (SELECT max(id) FROM tasks))" >/dev/null
ripcord rollback --strategy cache --yes --reason 'pages are of before the tasks came back' >/dev/null
is "tasks" "$(tasks)" 305
is "tasks with a result" "$(sql 'SELECT count(result) FROM tasks')" 200
page=$(curl -s -m 10 "http://127.0.0.1:$PORT/agents/2")
is "what is shown of agent 2" "$page" '{"tasks": 105, "done": 67}'
outside

say "no password is on record"
for each in secrets/*; do
    ! grep -rqF "$(cat "$each")" .ripcord logs agentic_platform.salvage-* || fail "$each is in clear"
done
ripcord log verify

say "the data-loss report of $run"
ripcord report "$run" --out report.md
sed -n '/^## Data given up/,/^## Who was told/p' report.md | sed '$d'

#!/usr/bin/env bash
# The whole story in one command: a good release; one whose uploads fail, cured by a toggle; one that the toggle does not cure, so that
# the code goes back; and one that spoils the data, which a person takes back whole. Looked at from outside all the while. Takes about
# four minutes. Works in a copy, and takes away what it made.
#
# Needs Node 20.12 or newer, npm with a registry, git, curl and Rust.
# environment: RIPCORD, the program (by default the one of PATH, else it is built); PORT (3000); KEEP=1 leaves the copy, to look at its
# record
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
    [ ! -S "$work/.pm2/rpc.sock" ] || PM2_HOME=$work/.pm2 "$work/tools/node_modules/.bin/pm2" kill >/dev/null 2>&1 || true
    if [ -n "${KEEP:-}" ]; then echo "its record is in $work"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

cp -R "$here/." "$work"
cd "$work"
rm -rf .ripcord
port=${PORT:-3000}
sed -i "s/3000/$port/" .env ripcord.yaml
url=http://127.0.0.1:$port

# What somebody outside finds.
version() { curl -sf -m 10 "$url/api/health" | sed -n 's/.*"version":"\([^"]*\)".*/\1/p'; }
# How many of 20 uploads of three files were stored only in part, or not at all.
partial() {
    local files='{"files":[{"name":"x","content":"1"},{"name":"y","content":"2"},{"name":"z","content":"3"}]}' n=0
    for _ in $(seq 20); do
        [ "$(curl -s -m 10 -o /dev/null -w '%{http_code}' -d "$files" "$url/api/upload")" = 200 ] || n=$((n + 1))
    done
    echo "$n"
}
# How many requests of the users nobody answered, so far.
unanswered() { sed -n 's/.*"unanswered":\([0-9]*\).*/\1/p' logs/users.json; }
outside() {
    echo "from outside: version $(version), $(partial) of 20 uploads failed; $(unanswered) requests of the users without an answer"
}
deploy() {
    say "ripcord deploy --version $1 -- ./deploy.sh $*"
    code=0
    "$RIPCORD" deploy --version "$1" -- ./deploy.sh "$@" || code=$?
}
timeline() {
    "$RIPCORD" report "$("$RIPCORD" log | grep -o 'run-[0-9]*' | tail -n 1)" --out report.md
    sed -n '/^## Timeline/,/^## Decision/p' report.md | sed '$d' | cut -c 1-150
}

say "pm2, the repository, and v1.0.0 as it was deployed before there was Ripcord"
./setup.sh
./deploy.sh v1.0.0
node load.mjs "$port" &
users=$!
until [ -s logs/users.json ]; do sleep 0.1; done

deploy v1.0.0
[ $code = 0 ] || fail "exit code $code, not 0 (deployed, and good)"
outside

# Level 1: the toggle is enough.
deploy v1.1.0 ENABLE_PARALLEL_UPLOADS=true
[ $code = 6 ] || fail "exit code $code, not 6 (went bad, and was taken back)"
timeline
outside
[ "$(version)" = 1.1.0 ] || fail "it is not v1.1.0 any more: the toggle alone was to change"
[ "$(partial)" = 0 ] || fail "uploads still fail"
tail -n 20 logs/app.log | grep -m 1 'sequential upload' || fail "the log does not say that uploads are sequential"

# Level 2: the toggle is not enough, and the code goes back.
deploy v1.2.0 ENABLE_PARALLEL_UPLOADS=true
[ $code = 6 ] || fail "exit code $code, not 6 (went bad, and was taken back)"
timeline
outside
[ "$(version)" = 1.1.0 ] || fail "it is not at v1.1.0"
[ "$(partial)" = 0 ] || fail "uploads still fail"
[ ! -d app/node_modules/p-limit ] || fail "a package of v1.2.0 is still there"
[ "$(unanswered)" = 0 ] || fail "the reload left requests without an answer"
ls -d app-failed-*

# Level 3: nothing measures that the memory was spoiled, so a person says so, and consents to what it costs.
nameless() {
    (cd app && node -p 'new (require("libsql"))("../.swarm/memory.db").prepare("SELECT count(*) AS n FROM agent_activities WHERE agent = ?").get("").n')
}
deploy v1.3.0
[ $code = 0 ] || [ $code = 8 ] || fail "exit code $code, not 0 or 8 (deployed, and nothing speaks against it)"
lost=$(nameless)
echo "activities that have lost their agent: $lost"
[ "$lost" -gt 0 ] || fail "v1.3.0 spoiled nothing"

say "ripcord rollback --to v1.1.0 --strategy full --yes --confirm 'CONFIRM DATA LOSS'"
"$RIPCORD" rollback --to v1.1.0 --strategy full --reason 'the agents have lost their names' --yes --confirm 'CONFIRM DATA LOSS'
timeline
outside
[ "$(version)" = 1.1.0 ] || fail "it is not at v1.1.0"
[ "$(nameless)" = 0 ] || fail "activities are still without their agent"
echo "activities that have lost their agent: 0; set aside:"
ls -d app-failed-* .swarm/memory.db.before-* .swarm/memory.db.salvage-*
[ "$(grep -h '"version"' app-failed-*/package.json | sort -u | wc -l)" = 2 ] || fail "v1.2.0 and v1.3.0 are not set aside"

say "v1.2.0 is kept out"
code=0
"$RIPCORD" release check v1.2.0 || code=$?
[ $code = 4 ] || fail "exit code $code, not 4 (refused)"

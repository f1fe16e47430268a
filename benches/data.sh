#!/usr/bin/env bash
# Measures what is done to data on real servers, beside what a person would type, and prints a table: name, figures, what is wanted,
# and the ratio of the two (up to 1.00 is as wanted). What it compares:
#
#   capture   the capture of a PostgreSQL database, beside `pg_dump -Fc | restic backup --stdin`; what reads it back stands apart
#   restore   a restore of it, beside `restic dump` to a file, `pg_restore -j`, ANALYZE and a count of every table
#   large     both with ten times the data: the ratio of the times, and the most memory that any process of it had
#   loss      `ripcord plan` on a table of 10,000,000 rows, changed since: what will be lost, from the server's statistics
#   etcd      a prefix of 1,000 keys put back, beside `etcdctl txn` with the same keys in transactions of 128
#
# use: benches/data.sh [capture] [restore] [large] [loss] [etcd]      (without a name: all of them)
# environment: MB=100, the database's size; RUNS=3, the median counts; RIPCORD, the program
#
# Needs postgresql, restic, etcd-server, etcd-client and python3. Nothing else should run on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
all=(capture restore large loss etcd)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "there is no \`$name\`; there are: ${all[*]}" >&2; exit 2; }
done
wanted() { [[ " ${names[*]} " == *" $1 "* ]]; }
runs=${RUNS:-3} mb=${MB:-100}
say() { echo "== $*" >&2; }

if [ -z "${RIPCORD:-}" ]; then
    say "building"
    cargo build --release -q -p ripcord
    RIPCORD=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/ripcord
fi
bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || { echo "PostgreSQL is not installed" >&2; exit 1; }

work=$(mktemp -d)
chmod 755 "$work"
etcd=''
finish() {
    trap - EXIT
    as_server "$bin/pg_ctl" -D "$work/data" -m immediate -s stop 2>/dev/null || true
    [ -z "$etcd" ] || { kill "$etcd" && wait "$etcd"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# PostgreSQL refuses to run as root.
as_server() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

export PGHOST=$work/run PGPORT=54391 PGUSER=ripcord
start_postgres() {
    mkdir -p "$work/data" "$work/run"
    [ "$(id -u)" != 0 ] || chown postgres: "$work/data" "$work/run"
    as_server "$bin/initdb" -D "$work/data" -U ripcord -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
    as_server "$bin/pg_ctl" -D "$work/data" -w -s -l "$work/data/log" start -o \
        "-c listen_addresses='' -c unix_socket_directories=$work/run -c port=$PGPORT -c shared_buffers=256MB -c max_wal_size=4GB"
}
sql() { psql -XAtq -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }

# filled DATABASE MB: tables with keys, indexes, a foreign key and text that can be packed somewhat.
filled() {
    sql postgres "CREATE DATABASE $1"
    sql "$1" "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now());
        INSERT INTO customers SELECT n, md5(n::text) FROM generate_series(1, $2 * 100) n;
        CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, cents int, note text);
        INSERT INTO orders SELECT n, 1 + n % ($2 * 100), n % 10000, md5(n::text) || ' ordered by customer ' || n % 977
            FROM generate_series(1, $2 * 5000) n;
        CREATE INDEX ON orders (customer); CREATE INDEX ON customers (name); ANALYZE"
}

# site NAME YAML: a directory with a configuration.
site() {
    mkdir -p "$work/$1"
    printf 'application: bench\npolicy: { watch: 1s, helps-within: 1s }\n%s\n' "$2" >"$work/$1/ripcord.yaml"
}
postgres_site() {
    site "$1" "components:
  db:
    postgres:
      connection: { socket: $PGHOST, port: $PGPORT, database: $1, user: ripcord }
      prove: listed
strategies:
  all:
    - { level: 1, name: data, restore: [db], budget: 2h }"
}

# took NAME COMMAND...: its seconds into a file, and the most memory that it or a program of its had, in MB.
took() {
    local name=$1
    shift
    python3 - "$work/$name.s" "$work/$name.mb" "$work/said" "$@" <<'PY' || { cat "$work/said" >&2; exit 1; }
import os, resource, subprocess, sys, time
seconds, memory, said = sys.argv[1:4]
began = time.monotonic()
with open(said, "w") as out:
    code = subprocess.call(sys.argv[4:], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
took = time.monotonic() - began
open(seconds, "a").write(f"{took:.3f}\n")
open(memory, "a").write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.1f}\n")
sys.exit(code)
PY
}
median() { sort -n "$work/$1" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# of_step SITE STEP: how many seconds the last call of a step took, by the record.
of_step() {
    (cd "$work/$1" && "$RIPCORD" log --json) | python3 -c '
import datetime, json, sys
step, begun, took = sys.argv[1], None, None
for line in sys.stdin:
    event = json.loads(line)
    at = datetime.datetime.fromisoformat(event["at"].replace("Z", "+00:00"))
    for kind, body in event["body"].items() if isinstance(event["body"], dict) else []:
        if isinstance(body, dict) and body.get("step") == step:
            if kind == "intent":
                begun = at
            elif kind == "acted":
                took = (at - begun).total_seconds()
print(took)' "$2"
}
ratio() { awk -v o="$2" -v b="$3" -v w="$4" -v n="$1" -v what="$5" 'BEGIN { printf "%s\t%.2f s beside %.2f s: %.2f x\t<= %s x %s\t%.2f\n", n, o, b, o / b, w, what, o / b / w }'; }

export RESTIC_PASSWORD=benchmark

# Captures and bare dumps of DATABASE in turn. A capture reads itself back, so the bare way is told to as well, which stands apart.
captures() {
    local database=$1 run
    rm -rf "$work/repo"
    restic init -q -r "$work/repo"
    for run in $(seq "$runs"); do
        # Nothing of the run before may be found again: both would have less to write.
        sql "$database" "UPDATE orders SET note = md5(note || '$run') || substr(note, 33)"
        sql "$database" "VACUUM FULL ANALYZE orders"
        say "$database: dumped, $run of $runs"
        took "$database.dump" bash -o pipefail -c "'$bin/pg_dump' -Fc -d $database | restic backup -q -r '$work/repo' --stdin --stdin-filename db.dump"
        took "$database.check" restic check -q -r "$work/repo" --read-data
        say "$database: captured, $run of $runs"
        (cd "$work/$database" && took "$database.capture" "$RIPCORD" release record "v$run")
    done
}

restores() {
    local database=$1 run
    (cd "$work/$database" && "$RIPCORD" release mark "v$runs" --good --why "a benchmark" >/dev/null)
    for run in $(seq "$runs"); do
        sql "$database" "UPDATE orders SET cents = cents + 1 WHERE id % 1000 = $run; DELETE FROM orders WHERE id % 5000 = $run"
        say "$database: restored by hand, $run of $runs"
        sql postgres "DROP DATABASE IF EXISTS ${database}_beside"
        took "$database.by-hand" bash -e -o pipefail -c "
            restic dump -q -r '$work/repo' latest db.dump >'$work/db.dump'
            createdb ${database}_beside
            '$bin/pg_restore' -j $(nproc) --exit-on-error -d ${database}_beside '$work/db.dump'
            psql -Xq -d ${database}_beside -c ANALYZE
            for table in customers orders; do psql -XAtq -d ${database}_beside -c \"SELECT count(*) FROM \$table\"; done"
        rm "$work/db.dump"
        (cd "$work/$database" && "$RIPCORD" release record "bad$run" >/dev/null 2>&1)
        say "$database: restored, $run of $runs"
        (cd "$work/$database" && took "$database.rollback" "$RIPCORD" rollback --strategy all --to "v$runs" --yes --confirm "CONFIRM DATA LOSS" \
            --no-watch --reason "a benchmark")
        of_step "$database" restore/db >>"$work/$database.restore.s"
        (cd "$work/$database" && "$RIPCORD" resume >/dev/null 2>&1) || true
        [ "$(sql "$database" 'SELECT count(*) FROM orders')" = "$(sql "${database}_beside" 'SELECT count(*) FROM orders')" ] ||
            { echo "the restored database is another than the one restored by hand" >&2; exit 1; }
    done
    sql postgres "DROP DATABASE ${database}_beside"
}

if wanted capture || wanted restore || wanted large || wanted loss; then
    start_postgres
fi
if wanted capture || wanted restore || wanted large; then
    say "a database of $mb MB"
    filled shop "$mb"
    postgres_site shop
    captures shop
    ratio "capture of $(sql shop 'SELECT pg_size_pretty(pg_database_size(current_database()))')" "$(median shop.capture.s)" \
        "$(awk -v a="$(median shop.dump.s)" -v b="$(median shop.check.s)" 'BEGIN { print a + b }')" 1.1 "a dump and its read-back" >>"$work/table"
    printf '  of which the bare dump, and its read-back\t%s s and %s s\t\t\n' "$(median shop.dump.s)" "$(median shop.check.s)" >>"$work/table"
    restores shop
    ratio "restore, the step" "$(median shop.restore.s)" "$(median shop.by-hand.s)" 1.1 "the same by hand" >>"$work/table"
    printf '  the whole rollback, with a capture of what is there\t%s s\t\t\n' "$(median shop.rollback.s)" >>"$work/table"
fi
if wanted large; then
    say "ten times as large"
    filled large $((mb * 10))
    postgres_site large
    runs=1
    captures large
    restores large
    awk -v s="$(median shop.capture.s)" -v l="$(median large.capture.s)" -v sm="$(median shop.capture.mb)" -v lm="$(median large.capture.mb)" 'BEGIN {
        printf "capture of ten times the data\t%.1f s beside %.1f s: %.1f x; %.0f MB of memory beside %.0f MB\t<= 12 x\t%.2f\n", l, s, l / s, lm, sm, l / s / 12 }' >>"$work/table"
    awk -v s="$(median shop.restore.s)" -v l="$(median large.restore.s)" -v sm="$(median shop.rollback.mb)" -v lm="$(median large.rollback.mb)" 'BEGIN {
        printf "restore of ten times the data\t%.1f s beside %.1f s: %.1f x; %.0f MB of memory beside %.0f MB\t<= 12 x\t%.2f\n", l, s, l / s, lm, sm, l / s / 12 }' >>"$work/table"
    sql postgres "DROP DATABASE large"
fi
if wanted loss; then
    say "a table of 10,000,000 rows"
    sql postgres "CREATE DATABASE many"
    sql many "CREATE TABLE many (id int, n int); INSERT INTO many SELECT n, n FROM generate_series(1, 10000000) n; ALTER TABLE many ADD PRIMARY KEY (id); ANALYZE"
    postgres_site many
    (cd "$work/many" && "$RIPCORD" release record v1 >/dev/null 2>&1 && "$RIPCORD" release mark v1 --good --why "a benchmark" >/dev/null)
    sql many "INSERT INTO many SELECT n, n FROM generate_series(10000001, 10001000) n; UPDATE many SET n = 0 WHERE id <= 500; DELETE FROM many WHERE id > 10000900"
    (cd "$work/many" && "$RIPCORD" release record v2 >/dev/null 2>&1)
    sql many "INSERT INTO many SELECT n, n FROM generate_series(10001001, 10001100) n"
    for run in $(seq "$runs"); do
        (cd "$work/many" && took many.plan "$RIPCORD" plan --strategy all --to v1)
        grep -q 'many' "$work/said" || { cat "$work/said" >&2; exit 1; }
    done
    awk -v s="$(median many.plan.s)" 'BEGIN { printf "loss of 10,000,000 rows, in a plan\t%.2f s\t<= 5 s\t%.2f\n", s, s / 5 }' >>"$work/table"
fi
if wanted etcd; then
    say "a prefix of 1,000 keys"
    read -r client peer < <(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
[s.bind(("127.0.0.1", 0)) for s in held]
print(*[s.getsockname()[1] for s in held])')
    etcd --name bench --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "bench=http://127.0.0.1:$peer" >"$work/etcd.log" 2>&1 &
    etcd=$!
    export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://127.0.0.1:$client
    until etcdctl endpoint health >/dev/null 2>&1; do kill -0 "$etcd"; done
    # transactions VALUE: puts all keys, 128 at a time, as `etcdctl txn` reads them.
    transactions() {
        python3 - "$1" "$work/txn" <<'PY'
import sys
keys = [f"put shop/config/key-{n} {sys.argv[1]}-{n}" for n in range(1000)]
for at in range(0, len(keys), 128):
    open(f"{sys.argv[2]}-{at // 128}", "w").write("\n" + "\n".join(keys[at:at + 128]) + "\n\n\n")
PY
    }
    put() { for part in "$work"/txn-*; do etcdctl txn <"$part" >/dev/null; done; }
    site config "components:
  config:
    etcd: { endpoints: ['http://127.0.0.1:$client'], prefix: shop/config/ }
strategies:
  all:
    - { level: 1, name: config, restore: [config], budget: 10m }"
    transactions good
    put
    (cd "$work/config" && "$RIPCORD" release record v1 >/dev/null 2>&1 && "$RIPCORD" release mark v1 --good --why "a benchmark" >/dev/null)
    export -f put
    export work
    for run in $(seq "$runs"); do
        transactions "bad$run"
        put
        (cd "$work/config" && "$RIPCORD" release record "bad$run" >/dev/null 2>&1)
        transactions good
        took etcd.by-hand bash -ec put
        transactions "bad$run"
        put
        (cd "$work/config" && took etcd.rollback "$RIPCORD" rollback --strategy all --to v1 --yes --no-watch --reason "a benchmark")
        of_step config restore/config >>"$work/etcd.restore.s"
        (cd "$work/config" && "$RIPCORD" resume >/dev/null 2>&1) || true
        [ "$(etcdctl get --print-value-only shop/config/key-999)" = good-999 ] || { echo "a key was not put back" >&2; exit 1; }
    done
    ratio "1,000 keys of etcd, the step" "$(median etcd.restore.s)" "$(median etcd.by-hand.s)" 1.5 "etcdctl" >>"$work/table"
fi
column -t -s "$(printf '\t')" "$work/table"

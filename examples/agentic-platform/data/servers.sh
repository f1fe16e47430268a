#!/usr/bin/env bash
# PostgreSQL, Redis and etcd of this machine's packages, as plain processes on the loopback with their data in DIRECTORY. They serve until
# this one's input is closed, which is when the service is stopped too and DIRECTORY is taken away. DIRECTORY/ready says that they do.
#
# use: servers.sh DIRECTORY      in a copy of this directory; PostgreSQL runs as `postgres` where this one is root, which it refuses
set -euo pipefail
cd "$(dirname "$0")"
dir=$1
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
mkdir -p "$dir/postgres/data" "$dir/redis" secrets logs
chmod 711 "$dir"
chmod 700 secrets
as_postgres() {
    if [ "$(id -u)" = 0 ]; then (cd / && exec runuser -u postgres -- "$@"); else "$@"; fi
}

pids=()
finish() {
    trap - EXIT
    ./service.sh stop || true
    as_postgres "$programs/pg_ctl" -D "$dir/postgres/data" -m immediate -s stop 2>/dev/null || true
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait || true
    rm -rf "$dir"
}
trap finish EXIT
trap '' INT TERM HUP # It ends with its input, so that everything it started ends before it.

umask 077
for name in owner ripcord redis; do
    od -An -N 16 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$name"
done
. ./names.sh
printf 'postgresql://agentic:%s@127.0.0.1:%s/agentic_platform' "$(cat secrets/owner)" "$POSTGRES_PORT" >secrets/database-url
printf 'redis://:%s@127.0.0.1:%s/0' "$(cat secrets/redis)" "$REDIS_PORT" >secrets/redis-url
umask 022

chmod 700 "$dir/postgres"
[ "$(id -u)" != 0 ] || chown -R postgres: "$dir/postgres"
# Its user may not read the password where it is, and nobody else may read it here.
as_postgres dd status=none of="$dir/postgres/password" <secrets/ripcord
chmod 600 "$dir/postgres/password"
as_postgres "$programs/initdb" -D "$dir/postgres/data" -U ripcord -A scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync \
    --pwfile="$dir/postgres/password" >logs/postgres.log
rm "$dir/postgres/password"
as_postgres tee -a "$dir/postgres/data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
port = $POSTGRES_PORT
unix_socket_directories = ''
shared_buffers = 32MB
END
as_postgres "$programs/pg_ctl" -D "$dir/postgres/data" -l "$dir/postgres/log" -w -s start >/dev/null </dev/null ||
    { cat "$dir/postgres/log" >&2; exit 1; }

redis-server - >logs/redis.log 2>&1 <<END &
bind 127.0.0.1
port $REDIS_PORT
dir $dir/redis
requirepass $(cat secrets/redis)
save ""
END
pids+=($!)
etcd --name one --data-dir "$dir/etcd" --listen-client-urls "$ETCD_URL" --advertise-client-urls "$ETCD_URL" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "one=http://127.0.0.1:$ETCD_PEER_PORT" >logs/etcd.log 2>&1 </dev/null &
pids+=($!)

as_ripcord -d postgres <<END
CREATE ROLE agentic LOGIN PASSWORD '$(cat secrets/owner)';
CREATE DATABASE agentic_platform OWNER agentic;
END
waits "Redis answers" cache ping
waits "etcd answers" store endpoint health
touch "$dir/ready"
cat >/dev/null

#!/usr/bin/env bash
# PostgreSQL and Redis of one's own, on loopback: `./servers.sh start` makes and starts them, `./servers.sh stop` ends them and takes
# away what they had. A role for each: `platform_owner` migrates, `platform` serves and sees one tenant's rows, `ripcord` takes back.
set -euo pipefail
cd "$(dirname "$0")"
postgres=$(find /usr/lib/postgresql -path '*/bin/postgres' | sort -V | tail -n 1)
postgres=${postgres%/postgres}
# PostgreSQL refuses to run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }
port() { sed -n "s|^$1.*127.0.0.1:\([0-9]*\)/.*|\1|p" .env; }

start() {
    mkdir -p run secrets redis
    chmod 700 secrets
    for who in postgres platform_owner platform ripcord; do
        python3 -c 'import secrets; print(secrets.token_hex(16))' >"secrets/$who"
        chmod 600 "secrets/$who"
    done
    redis-server --bind 127.0.0.1 --port "$(port REDIS_URL)" --dir "$PWD/redis" --save '' --appendonly no \
        --daemonize yes --pidfile "$PWD/run/redis.pid" --logfile "$PWD/redis/log" >/dev/null

    # In a place of its own: whom PostgreSQL runs as may not enter this directory.
    local data
    data=$(mktemp -d)
    echo "$data" >run/postgres
    cp secrets/postgres "$data/password"
    if [ "$(id -u)" = 0 ]; then chown -R postgres "$data"; fi
    as_postgres "$postgres/initdb" -D "$data/data" -U postgres -A scram-sha-256 --pwfile "$data/password" --no-locale -E UTF8 --no-sync >/dev/null
    as_postgres "$postgres/pg_ctl" -D "$data/data" -w -t 120 -l "$data/log" \
        -o "-c listen_addresses=127.0.0.1 -c port=$(port DATABASE_URL) -c unix_socket_directories=$data" start >/dev/null
    for who in postgres platform_owner platform ripcord; do
        echo "127.0.0.1:*:*:$who:$(cat "secrets/$who")" >>secrets/pgpass
    done
    chmod 600 secrets/pgpass
    sed -i "s|PASSWORD|$(cat secrets/platform)|" .env
    echo "postgresql://platform_owner:$(cat secrets/platform_owner)@127.0.0.1:$(port DATABASE_URL)/platform" >secrets/migrations-url
    chmod 600 secrets/migrations-url .env
    # Passwords go by standard input: what is an argument can be read by everybody on the machine. What `ripcord` may is what
    # docs/postgres.md lists for a role that is no superuser.
    PGPASSFILE=secrets/pgpass psql -qX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(port DATABASE_URL)" -U postgres -d postgres <<SQL
CREATE ROLE platform_owner LOGIN PASSWORD '$(cat secrets/platform_owner)';
CREATE ROLE platform LOGIN PASSWORD '$(cat secrets/platform)';
CREATE ROLE ripcord LOGIN CREATEDB BYPASSRLS PASSWORD '$(cat secrets/ripcord)'
    IN ROLE pg_read_all_data, pg_read_all_stats, pg_signal_backend, platform_owner;
GRANT SET ON PARAMETER "ripcord.restored", "ripcord.aside", "ripcord.building" TO ripcord;
CREATE DATABASE platform OWNER platform_owner;
SQL
}

stop() {
    if [ -s run/redis.pid ]; then kill "$(cat run/redis.pid)" 2>/dev/null || true; fi
    if [ -s run/postgres ]; then
        local data
        data=$(cat run/postgres)
        as_postgres "$postgres/pg_ctl" -D "$data/data" -m immediate -w stop >/dev/null 2>&1 || true
        rm -rf "$data"
    fi
}

"$1"

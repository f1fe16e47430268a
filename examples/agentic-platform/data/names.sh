# Read by the scripts beside it: where everything is, and how the servers are asked. No password is in an argument.
set -a
. ./.env
ETCD_URL=http://127.0.0.1:$ETCD_PORT
if [ -e secrets/database-url ]; then
    DATABASE_URL=$(cat secrets/database-url)
    REDIS_URL=$(cat secrets/redis-url)
fi
set +a

# As one who may see and write everything.
as_ripcord() {
    PGPASSWORD=$(cat secrets/ripcord) psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$POSTGRES_PORT" -U ripcord "$@"
}

sql() {
    as_ripcord -d "${2:-agentic_platform}" -c "$1"
}

cache() {
    REDISCLI_AUTH=$(cat secrets/redis) redis-cli -h 127.0.0.1 -p "$REDIS_PORT" "$@"
}

store() {
    ETCDCTL_API=3 etcdctl --endpoints "$ETCD_URL" "$@"
}

# waits WHAT COMMAND...: until it succeeds, for two minutes at most.
waits() {
    local what=$1 deadline=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "$what: not within two minutes" >&2; return 1; }
        sleep 0.1
    done
}

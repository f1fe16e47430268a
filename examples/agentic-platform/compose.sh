# Read by the scripts beside it: how Compose is run here, and how a service is waited for.

# PROGRAM: `docker compose` where it is installed, else `docker-compose`; Ripcord looks for them in the same way.
if docker compose version >/dev/null 2>&1; then PROGRAM=(docker compose); else PROGRAM=(docker-compose); fi

compose() {
    "${PROGRAM[@]}" -p agentic-platform -f docker-compose.yml --env-file .env.production "$@"
}

# container SERVICE: the id of the one that runs. Asked of the Engine: a process of Compose takes ten times as long.
container() {
    docker ps --quiet --filter label=com.docker.compose.project=agentic-platform --filter "label=com.docker.compose.service=$1"
}

# healthy SERVICE...: waits until each is, for a minute at most.
healthy() {
    local deadline=$((SECONDS + 60)) service id
    for service in "$@"; do
        until id=$(container "$service") && [ -n "$id" ] &&
            [ "$(docker inspect --format '{{.State.Health.Status}}' "$id" 2>/dev/null)" = healthy ]; do
            [ $SECONDS -lt $deadline ] || { echo "$service does not become healthy" >&2; return 1; }
            sleep 0.1
        done
    done
}

# setting KEY VALUE: in .env.production, which is replaced whole.
setting() {
    sed "s|^$1=.*|$1=$2|" .env.production >.env.production.new
    mv .env.production.new .env.production
}

GROUPS_IN_ORDER=(
    "l01-data-layer"
    "l02-runtime l03-tool-execution l04-model-gateway l05-planning l06-evaluation l07-learning"
    "l09-api-gateway"
    "l10-human-interface"
    "l11-integration l12-language-interface"
)

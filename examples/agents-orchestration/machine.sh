#!/usr/bin/env bash
# Starts a machine: a container in which systemd is the first process. Where the Engine has no image of it, one is imported, and made
# first where it was not (`image.sh`).
#
# use: ./machine.sh NAME [OPTION OF DOCKER RUN]...
# environment: MACHINE_IMAGE, the tar file that is imported, kept for the next time (by default in ~/.cache)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1
shift
# Another recipe is another image.
image=ripcord-examples/machine:$(sha256sum "$here/image.sh" | cut -c 1-12)
if ! docker image inspect "$image" >/dev/null 2>&1; then
    tar=${MACHINE_IMAGE:-${XDG_CACHE_HOME:-$HOME/.cache}/ripcord-examples/machine.tar}.${image#*:}
    mkdir -p "$(dirname "$tar")"
    # Several may want it at once: one makes it.
    (flock 9 && { [ -e "$tar" ] || "$here/image.sh" "$tar"; }) 9>"$tar.lock"
    docker import -c 'CMD ["/sbin/init"]' -c 'ENV container=docker' "$tar" "$image" >/dev/null
fi
# What systemd needs to be the first process. This is close to being root of the host: for a laboratory, and nothing else.
docker run --detach --name "$name" --hostname "$name" --cap-add ALL --cap-drop SYS_RESOURCE \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec \
    --volume /sys/fs/cgroup:/sys/fs/cgroup:ro --volume /sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd:rw "$@" "$image" >/dev/null
deadline=$((SECONDS + 90))
while [ $SECONDS -lt $deadline ]; do
    state=$(docker exec "$name" systemctl is-system-running 2>/dev/null) || true
    case $state in running | degraded) exit 0 ;; esac
    sleep 0.1
done
echo "$name does not come up: ${state:-systemd does not answer}" >&2
exit 1

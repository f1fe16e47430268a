#!/usr/bin/env bash
# Starts the machine and sees that `ssh -F ssh_config app` gets there: with a key made here, and with the machine's own key, which is
# read by another way than the network. A machine that was there before is taken away: this is how the bare one comes about.
#
# use: ./host.sh      in a copy of this directory
set -euo pipefail
. ./names.sh
mkdir -p shared/git
docker network inspect "$NETWORK" >/dev/null 2>&1 || docker network create "$NETWORK" >/dev/null
docker rm --force --volumes "$MACHINE" >/dev/null 2>&1 || true
./machine.sh "$MACHINE" --network "$NETWORK" --publish 127.0.0.1::22 --publish 127.0.0.1::8000 --volume "$PWD/shared:/srv/shared"
[ -e key ] || ssh-keygen -q -t ed25519 -N '' -f key
docker exec -i "$MACHINE" sh -euc 'mkdir -p -m 700 ~root/.ssh; cat >~root/.ssh/authorized_keys; ssh-keygen -A >/dev/null; systemctl start ssh' <key.pub
published() { docker port "$MACHINE" "$1" | sed -n '1s/.*://p'; }
port=$(published 22)
published 8000 >port
printf '[127.0.0.1]:%s %s\n' "$port" "$(docker exec "$MACHINE" cat /etc/ssh/ssh_host_ed25519_key.pub)" >known_hosts
cat >ssh_config <<END
Host app
    HostName 127.0.0.1
    Port $port
    User root
    IdentityFile $PWD/key
    IdentitiesOnly yes
    UserKnownHostsFile $PWD/known_hosts
    GlobalKnownHostsFile none
END

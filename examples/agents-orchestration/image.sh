#!/usr/bin/env bash
# Makes the machine of this example: Debian with systemd as its first process, an SSH server, Python and git, as a tar file that
# `docker import` takes. Needs root and debootstrap, and about a minute.
#
# use: ./image.sh FILE
set -euo pipefail
# In memory, and in a view of the mounts that ends with this script.
[ -n "${APART:-}" ] || exec env APART=1 unshare --mount --propagation private "$0" "$(realpath "$1")"
file=$1
root=$(mktemp -d)
trap 'umount "$root" 2>/dev/null; rm -rf "$root" "$file.new"' EXIT
mount -t tmpfs -o size=2g,mode=0755 machine "$root"
packages=systemd,systemd-sysv,dbus,openssh-server,python3,python3-venv,git,ca-certificates
debootstrap --variant=minbase --include=$packages bookworm "$root" >"$file.new" 2>&1 ||
    { tail -n 5 "$file.new" >&2; exit 1; }
# A machine in a container: no terminals, nobody who logs in at one, and no host keys that every such machine would share.
rm -f "$root"/etc/systemd/system/*.wants/* "$root"/etc/ssh/ssh_host_*
for unit in getty.target console-getty.service systemd-logind.service; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
tar -C "$root" --numeric-owner -cf "$file.new" .
mv "$file.new" "$file"

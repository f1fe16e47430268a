#!/usr/bin/env bash
# Compares the vault with restic on the same data: half text, half noise, and 5,000 small files.
#
# Both sides end with the data proven and on the disk: `capture` reads everything back, so restic gets `check --read-data`;
# `restore` compares and syncs, so restic gets a `sync`. Runs alternate, so that what else the machine does hits both.
#
# use: benches/vault-vs-restic.sh [megabytes=1000] [runs=5] [directory=a new one in $TMPDIR]
set -euo pipefail
megabytes=${1:-1000}
runs=${2:-5}
place=${3:-$(mktemp -d)}
mkdir -p "$place"
trap 'rm -rf "$place"' EXIT

cd "$(dirname "$0")/.."
bench=$(cargo bench --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"vault".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$bench" ] || { echo "the bench was not built" >&2; exit 1; }
command -v restic >/dev/null || { echo "restic is not installed" >&2; exit 1; }

"$bench" data "$place/data" "$megabytes"
umask 077
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$place/key"
export RESTIC_PASSWORD_FILE=$place/key

# timed NAME COMMAND...: appends "seconds kilobytes" to the results of NAME.
timed() {
    local name=$1
    shift
    sync
    /usr/bin/time -q -a -o "$place/$name.times" -f '%e %M' "$@" >/dev/null
}

for _ in $(seq "$runs"); do
    rm -rf "$place"/{vault,restic,to-vault,to-restic}
    # Created beforehand on both sides: stretching the password is not what is measured, but restic does it at each opening.
    "$bench" capture "$place/vault" "$place/key" "$place/data/small/00" /dev/null
    restic -q --no-cache -r "$place/restic" init
    timed vault-capture "$bench" capture "$place/vault" "$place/key" "$place/data" "$place/manifest"
    timed restic-capture sh -c 'restic -q --no-cache -r "$1" backup "$2" && restic -q --no-cache -r "$1" check --read-data' sh \
        "$place/restic" "$place/data"
    timed vault-restore "$bench" restore "$place/vault" "$place/key" "$place/manifest" "$place/to-vault"
    timed restic-restore sh -c 'restic -q --no-cache -r "$1" restore latest --target "$2" && sync' sh \
        "$place/restic" "$place/to-restic"
    diff -r "$place/data" "$place/to-vault"
done

# The middle one of column $2 of $1.
median() { awk -v c="$2" '{print $c}' "$place/$1.times" | sort -n | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }

for act in capture restore; do
    ours=$(median vault-$act 1) theirs=$(median restic-$act 1)
    awk -v act=$act -v o="$ours" -v t="$theirs" -v om="$(median vault-$act 2)" -v tm="$(median restic-$act 2)" -v mb="$megabytes" \
        'BEGIN {printf "%s: vault %.2f s (%.0f MB/s, peak %d MB), restic %.2f s (%.0f MB/s, peak %d MB), ratio %.2f\n",
            act, o, mb/o, om/1000, t, mb/t, tm/1000, o/t}'
done
du -sm "$place/vault/repository" "$place/restic" | awk '{printf "%s%d MB", (NR==1 ? "stored: vault " : ", restic "), $1} END {print ""}'

#!/usr/bin/env bash
# Changes settings in etcd: KEY=VALUE puts one, KEY- deletes one, by names below `config/`. Knows nothing of Ripcord.
#
# use: ./configure.sh database/pool_size=20 features/planning-
set -euo pipefail
cd "$(dirname "$0")"
. ./names.sh
for each in "$@"; do
    case $each in
    *=*) store put "config/${each%%=*}" "${each#*=}" ;;
    *-) store del "config/${each%-}" ;;
    *) echo "neither KEY=VALUE nor KEY-: $each" >&2 && exit 2 ;;
    esac
done

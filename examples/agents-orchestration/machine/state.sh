#!/bin/sh
# What the agents did so far, for Ripcord: looked at, kept and put back.
#
# use: state.sh observe|capture|restore      in /srv/agents
set -eu
# It is what it is: the sum of its files' names and contents.
revision() {
    [ -d artefacts ] || return 0
    find artefacts -type f ! -name '*.new' -print0 | sort -z | xargs -0 -r sha256sum | sha256sum | cut -c 1-16
}
case $1 in
    observe) revision ;;
    capture) if [ -d artefacts ]; then tar --exclude '*.new' -cf - artefacts; else tar -cf - --files-from /dev/null; fi ;;
    # The service is stopped. The former state, and the logs of what came of it, are set aside; counting begins anew with the process.
    restore)
        rm -rf artefacts.new
        mkdir artefacts.new
        tar --strip-components 1 -C artefacts.new -xf -
        [ "$(revision)" != "$RIPCORD_REVISION" ] || { rm -rf artefacts.new; exit 0; }
        aside=failed-$(date -u +%Y%m%dT%H%M%SZ)
        mkdir -p "$aside"
        [ ! -d artefacts ] || mv artefacts "$aside/artefacts"
        [ ! -d logs ] || mv logs "$aside/logs"
        mkdir logs
        mv artefacts.new artefacts
        ;;
esac

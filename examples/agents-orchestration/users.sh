#!/usr/bin/env bash
# Users: tasks, one after another, until the file `users` is gone. Each answer's status is a line in it.
#
# use: ./users.sh &
cd "$(dirname "$0")"
: >users
while [ -e users ]; do
    status=$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$(cat port)/run")
    [ ! -e users ] || echo "$status" >>users
    sleep 0.1
done

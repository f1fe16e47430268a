#!/usr/bin/env bash
# Takes a release on many hosts back (the link switched, the service restarted, verified) with Ripcord, Ansible and Capistrano, and
# prints what each of them takes with 1, 12 and 48 hosts.
#
# A host is an SSH server of its own on a loopback address of its own, with a directory of its own. Its service is a small web server
# that takes two seconds to be ready; `./service restart` returns when it is. All three programs do the same on each host: switch the
# link, restart, and see that the right version answers. Logins are made before, and timed apart:
#
#   ripcord     the run's time is that from its begin to its end on record; `ripcord rollback` surveys and plans before, which opens
#               the connections, so that the rest of its time is the login's and the plan's
#   ansible     one play with the modules `file` and `command`, pipelining, as many forks as there are hosts, facts not gathered;
#               connections are opened before by a play of their own, and kept (ControlPersist)
#   capistrano  one task of its own, all hosts at once, over connections that the task before opened
#
# use: benches/ssh-hosts.sh [N..]      without numbers: 1 12 48
# environment: RUNS=3, how often each is timed (the medians count); RIPCORD, the program; PEERS=no leaves the others out;
#   SCRATCH=/tmp, the disk of all hosts and of the record
#
# Needed: openssh-server, busybox, curl; for the comparison ansible and capistrano, as Debian has them. Nothing else should run on the
# machine: it is all the hosts and the controller too, so with many hosts its processors are what is measured.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-3}
numbers=("$@")
[ ${#numbers[@]} -gt 0 ] || numbers=(1 12 48)
say() { echo "== $*" >&2; }
# quietly COMMAND...: what it says is shown only where it fails.
quietly() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }; }

sshd=$(PATH=$PATH:/usr/sbin command -v sshd) || { echo "install openssh-server" >&2; exit 2; }
for program in busybox curl; do
    command -v "$program" >/dev/null || { echo "install $program" >&2; exit 2; }
done
peers=()
if [ "${PEERS:-yes}" != no ]; then
    for program in ansible-playbook:ansible cap:capistrano; do
        if command -v "${program%:*}" >/dev/null; then peers+=("${program#*:}"); else say "${program#*:} is not installed: not compared"; fi
    done
fi

if [ -z "${RIPCORD:-}" ]; then
    say "building"
    cargo build --release -q -p ripcord
    RIPCORD=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/ripcord
fi
RIPCORD=$(realpath "$RIPCORD")

# Short, since sockets are made below it.
work=$(mktemp -d "${SCRATCH:-/tmp}/hosts.XXXXXX")
servers=()
finish() {
    trap - EXIT
    # What keeps connections open beyond its own end is asked to close them.
    for socket in "$work"/a/c/*; do
        [ -S "$socket" ] && ssh -o ControlPath="$socket" -O exit nobody 2>/dev/null || true
    done
    for pid in "$work"/host*/run/pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
    done
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# ---- the hosts ----

most=$(printf '%s\n' "${numbers[@]}" | sort -n | tail -1)
port=0
for candidate in $(seq 20022 20122); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then port=$candidate; break; fi
done
http=$((port + 1000))
address() { echo "127.77.0.$((10 + $1))"; }

# What is on each host. A service says itself when it is ready: nobody asks again and again, which would be most of what is measured.
cat >"$work/service" <<'END'
#!/bin/sh
# ./service start | stop | restart | instance | verify VERSION
# Nothing but the shell's own, where it can be: with many hosts on one machine other programs would be much of what is measured.
set -eu
cd "${0%/*}"
. ./address
alive() { [ -f run/pid ] && read -r pid <run/pid && kill -0 "$pid" 2>/dev/null; }
stop() {
    alive || return 0
    kill "$pid"
    while alive; do sleep 0.01; done
    rm -f run/pid
}
start() {
    if alive; then return 0; fi
    rm -f run/ready
    mkfifo run/ready
    # It is `current` of this moment that is served.
    setsid sh -c 'sleep 2; busybox httpd -f -p "$0" -h current & echo $! >run/pid
        until busybox wget -q -O /dev/null "http://$0/version"; do sleep 0.02; done; echo >run/ready; wait' "$ADDRESS" \
        </dev/null >/dev/null 2>&1 &
    read -r _ <run/ready
    alive
}
case $1 in
start) start ;;
stop) stop ;;
restart) stop && start ;;
instance) alive || exit 1; echo "$pid" ;;
verify) [ "$(busybox wget -q -O - "http://$ADDRESS/version")" = "$2" ] ;;
esac
END
chmod +x "$work/service"

say "$most hosts"
# Kinds of keys that every SSH library can use.
ssh-keygen -q -t ecdsa -N '' -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/user_key"
cp "$work/user_key.pub" "$work/authorized_keys"
[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
for n in $(seq "$most"); do
    host=$work/host$n
    mkdir -p "$host/releases/v1.0.0" "$host/releases/v1.1.0" "$host/home" "$host/run"
    echo v1.0.0 >"$host/releases/v1.0.0/version"
    echo v1.1.0 >"$host/releases/v1.1.0/version"
    ln -s releases/v1.0.0 "$host/current"
    cp "$work/service" "$host/service"
    echo "ADDRESS=$(address "$n"):$http" >"$host/address"
    cat >"$host/sshd_config" <<END
Port $port
ListenAddress $(address "$n")
HostKey $work/host_key
AuthorizedKeysFile $work/authorized_keys
PidFile none
StrictModes no
UsePAM no
PrintMotd no
SetEnv HOME=$host/home XDG_CACHE_HOME=$host/home/cache XDG_STATE_HOME=$host/home/state
END
    "$sshd" -D -f "$host/sshd_config" -E "$host/sshd.log" </dev/null >/dev/null 2>&1 &
    servers+=($!)
    echo "[$(address "$n")]:$port $(cat "$work/host_key.pub")" >>"$work/known_hosts"
    cat >>"$work/ssh_config" <<END
Host host$n
  HostName $(address "$n")
END
done
cat >>"$work/ssh_config" <<END
Host *
  Port $port
  IdentityFile $work/user_key
  IdentitiesOnly yes
  UserKnownHostsFile $work/known_hosts
  GlobalKnownHostsFile none
END
for n in $(seq "$most"); do
    for _ in $(seq 100); do (exec 3<>"/dev/tcp/$(address "$n")/$port") 2>/dev/null && break; sleep 0.05; done
done

# ---- the three programs ----

directory=$work/ripcord
configure_ripcord() {
    rm -rf "$directory"
    mkdir "$directory"
    {
        echo "application: shop"
        echo "hosts:"
        for n in $(seq "$1"); do
            echo "  host$n: { ssh: { to: host$n, config: $work/ssh_config }, directory: $work/host$n, installed: $RIPCORD }"
        done
        echo "groups: { all: [$(seq -s ', ' -f 'host%g' "$1")] }"
        cat <<'END'
components:
  code: { directory: { path: current, releases: releases, readers: restart }, hosts: [all] }
  service:
    command: { start: [./service, start], stop: [./service, stop], instance: [./service, instance] }
    needs: [code]
    hosts: [all]
policy: { watch: 10ms }
END
    } >"$directory/ripcord.yaml"
    cd "$directory"
    quietly "$RIPCORD" release record v1.0.0
    quietly "$RIPCORD" release mark v1.0.0 --good --why "a benchmark"
}

configure_ansible() {
    mkdir -p "$work/a/c"
    cd "$work/a"
    seq -f 'host%g' "$1" >inventory
    cat >ansible.cfg <<END
[defaults]
home = $work/a/home
inventory = inventory
forks = $1
gathering = explicit
interpreter_python = /usr/bin/python3
nocows = 1
local_tmp = $work/a/tmp
[ssh_connection]
pipelining = True
ssh_args = -F $work/ssh_config -o ControlMaster=auto -o ControlPersist=120s
control_path_dir = $work/a/c
END
    cat >connect.yml <<END
- hosts: all
  tasks: [{ raw: "true" }]
END
    # The addresses of hosts end as the directories' numbers do.
    cat >rollback.yml <<END
- hosts: all
  tasks:
    - file: { src: releases/v1.0.0, dest: "$work/{{ inventory_hostname }}/current", state: link, follow: false }
    - command: "$work/{{ inventory_hostname }}/service restart"
    - command: "$work/{{ inventory_hostname }}/service verify v1.0.0"
END
}

configure_capistrano() {
    mkdir -p "$work/cap/config/deploy"
    cd "$work/cap"
    cat >Capfile <<END
require "capistrano/setup"
require "capistrano/deploy"
require "capistrano/scm/git"
install_plugin Capistrano::SCM::Git
END
    cat >config/deploy.rb <<END
set :application, "shop"
set :repo_url, "none"
set :pty, false
set :format, :blackhole
set :log_level, :error
task :connect do
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  on(roles(:app)) { execute :true }
  File.write("$work/cap/login", Process.clock_gettime(Process::CLOCK_MONOTONIC) - began)
end
task rollback: :connect do
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  on(roles(:app)) do |host|
    directory = "$work/#{host.properties.directory}"
    execute :ln, "-sfn", "releases/v1.0.0", "#{directory}/current.new"
    execute :mv, "-T", "#{directory}/current.new", "#{directory}/current"
    execute "#{directory}/service", "restart"
    execute "#{directory}/service", "verify", "v1.0.0"
  end
  File.write("$work/cap/run", Process.clock_gettime(Process::CLOCK_MONOTONIC) - began)
end
END
    {
        for n in $(seq "$1"); do
            echo "server '$(address "$n")', user: '$(id -un)', port: $port, roles: %w{app}, directory: 'host$n'"
        done
        echo "set :ssh_options, { keys: ['$work/user_key'], keys_only: true, config: false, auth_methods: %w(publickey)," \
            "user_known_hosts_file: '$work/known_hosts', verify_host_key: :always }"
    } >config/deploy/lab.rb
}

# ---- what is timed ----

# at VERSION N: as a deployment of that version leaves the hosts.
at() {
    local n
    for n in $(seq "$2"); do
        ln -sfn "releases/$1" "$work/host$n/current.new"
        mv -T "$work/host$n/current.new" "$work/host$n/current"
        "$work/host$n/service" restart &
        deploying[n]=$!
    done
    wait "${deploying[@]}"
    all_at "$1" "$2"
}

# all_at VERSION N: what was timed really happened, seen from outside.
all_at() {
    local n
    for n in $(seq "$2"); do
        [ "$(curl -s --max-time 5 "http://$(address "$n"):$http/version")" = "$1" ] || { echo "host$n is not at $1" >&2; exit 1; }
    done
}

now() { date +%s.%N; }
since() { awk -v b="$1" -v e="$(now)" 'BEGIN { printf "%.2f", e - b }'; }
load() { cut -d' ' -f1 /proc/loadavg; }

# keep NAME N FIGURE
keep() { LC_ALL=C printf '%.2f\n' "$3" >>"$work/figures.$1.$2"; }
median() { sort -n "$work/figures.$1.$2" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

time_ripcord() {
    local n=$1 began whole run
    cd "$directory"
    quietly "$RIPCORD" release record "v1.1.$2"
    began=$(now)
    quietly "$RIPCORD" rollback --to v1.0.0 --yes --reason "a benchmark"
    whole=$(since "$began")
    all_at v1.0.0 "$n"
    # From the moment the run was started until everything was verified, as the record has it.
    # A line has its own moment before its body, and within its body perhaps others.
    run=$("$RIPCORD" --json log | awk -F '"at":"' '
        function seconds(at,  part) { split(substr(at, 12, 12), part, /[:Z]/); return part[1] * 3600 + part[2] * 60 + part[3] }
        /"body":"started"/ { began = seconds($2) }
        /"body":{"watching"/ { ended = seconds($2) }
        END { printf "%.2f", ended - began + (ended < began ? 86400 : 0) }')
    keep ripcord.run "$n" "$run"
    keep ripcord.login "$n" "$(awk -v w="$whole" -v r="$run" 'BEGIN { printf "%.2f", w - r }')"
}

time_ansible() {
    local n=$1 began
    cd "$work/a"
    began=$(now)
    quietly ansible-playbook connect.yml
    keep ansible.login "$n" "$(since "$began")"
    began=$(now)
    quietly ansible-playbook rollback.yml
    keep ansible.run "$n" "$(since "$began")"
    for socket in "$work"/a/c/*; do
        ssh -o ControlPath="$socket" -O exit nobody 2>/dev/null || true
    done
    all_at v1.0.0 "$n"
}

time_capistrano() {
    local n=$1
    cd "$work/cap"
    quietly cap lab rollback
    keep capistrano.login "$n" "$(cat login)"
    keep capistrano.run "$n" "$(cat run)"
    all_at v1.0.0 "$n"
}

for n in "${numbers[@]}"; do
    deploying=()
    at v1.0.0 "$n"
    for program in ripcord "${peers[@]}"; do "configure_$program" "$n"; done
    for run in $(seq "$runs"); do
        for program in ripcord "${peers[@]}"; do
            at v1.1.0 "$n"
            before=$(load)
            "time_$program" "$n" "$run"
            say "$n hosts, $program, $run of $runs: $(tail -n 1 "$work/figures.$program.run.$n") s" \
                "after $(tail -n 1 "$work/figures.$program.login.$n") s (load $before before it)"
        done
    done
done

# ---- the table ----

first=${numbers[0]}
for program in ripcord "${peers[@]}"; do
    for n in "${numbers[@]}"; do
        awk -v p="$program" -v n="$n" -v f="$first" -v r="$(median "$program.run" "$n")" -v l="$(median "$program.login" "$n")" \
            -v one="$(median "$program.run" "$first")" -v ours="$(median ripcord.run "$n")" 'BEGIN {
            printf "%s, %d host%s\t%.2f s\tlogins and what is before: %.2f s\t%.2f x its own with %d\t%.2f x ripcord\n",
                p, n, (n == 1 ? "" : "s"), r, l, r / one, f, r / ours }'
    done
done

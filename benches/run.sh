#!/usr/bin/env bash
# Measures speed and size, and prints a table: name, figure, what is wanted, and the ratio of the two (up to 1.00 is as wanted).
#
# use: benches/run.sh [chain] [restore] [triggers] [watch] [detect] [vault] [status]      (without a name: all of them)
#
# Nothing else should run on the machine: some of the figures are of milliseconds. Scratch data is kept below the target directory,
# so that its disk is the one measured.
# environment: VAULT_MB=256 and VAULT_RUNS=5, the data of `vault`; WATCH_SECONDS=60, how long `watch` is measured
set -euo pipefail
cd "$(dirname "$0")/.."

all=(chain restore triggers watch detect vault status)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${all[@]}")
for name in "${names[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "there is no \`$name\`; there are: ${all[*]}" >&2; exit 2; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
table=$work/table

say() { echo "== $*" >&2; }

# built CRATE BENCH: where the benchmark's program is, once it is built.
built() {
    cargo bench --no-run -q -p "$1" --bench "$2" --message-format=json |
        sed -n 's/.*"name":"'"$2"'".*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

say "building"
cargo build --release -q -p ripcord
target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
ripcord=$target/release/ripcord
engine=$(built ripcord-engine engine)
[ -x "$ripcord" ] && [ -x "$engine" ] || { echo "the programs were not built" >&2; exit 1; }

# fsyncs COMMAND...: how often a program asks for its data to be on the disk.
fsyncs() {
    strace -f -c -e trace=fsync,fdatasync -o "$work/strace" "$@" 2>/dev/null
    awk '$NF == "fsync" || $NF == "fdatasync" {sum += $4} END {print sum + 0}' "$work/strace"
}

chain() {
    "$engine" chain 1000 9
    if command -v strace >/dev/null; then
        # Opening and closing the record has its own, which is why a short chain is taken away from a long one.
        local ours bare
        ours=$(($(fsyncs "$engine" chain-once 1100) - $(fsyncs "$engine" chain-once 100)))
        bare=$(($(fsyncs "$engine" commits-once 1100) - $(fsyncs "$engine" commits-once 100)))
        awk -v o="$ours" -v b="$bare" 'BEGIN {
            printf "  its fsyncs, of 1,000 steps\t%d, of bare commits %d: %.2f x\t<= 1.3 x two bare commits\t%.2f\n", o, b, o/b, o/b/1.3 }'
    else
        say "strace is not installed: fsyncs are not counted"
    fi
}

restore() { "$engine" restore; }

triggers() {
    # divan's columns: fastest, slowest, median, mean. The line below the times has the samples a second.
    cargo bench -q -p ripcord-core --bench triggers | tee /dev/stderr | awk '
        /─ / { for (i = 1; i <= NF; i++) if ($i ~ /^[a-z_]+$/) { name = $i; break } }
        /item\/s/ && name != "" {
            # The tree before the first column has bars too: the median is the third that has a rate.
            columns = split($0, column, "│"); seen = 0
            for (i = 1; i <= columns; i++) if (column[i] ~ /item\/s/ && ++seen == 3) rate = column[i]
            split(rate, part, " "); figure = part[1] * (part[2] ~ /^M/ ? 1e6 : part[2] ~ /^K/ ? 1e3 : part[2] ~ /^G/ ? 1e9 : 1)
            gsub("_", " ", name)
            printf "triggers: %s\t%.1f million samples/s\t>= 1 million samples/s\t%.2f\n", name, figure / 1e6, 1e6 / figure
            name = ""
        }'
}

watch() { "$engine" watch "$ripcord" "${WATCH_SECONDS:-60}"; }

detect() { "$engine" detect "$ripcord"; }

vault() {
    command -v restic >/dev/null || { say "restic is not installed: the vault is not compared"; return; }
    local megabytes=${VAULT_MB:-256} scratch
    mkdir -p "$target/tmp"
    scratch=$(mktemp -d "$target/tmp/vault.XXXXXX")
    crates/ripcord-vault/benches/vault-vs-restic.sh "$megabytes" "${VAULT_RUNS:-5}" "$scratch" | tee /dev/stderr |
        awk -v mb="$megabytes" '
        # capture: vault 1.50 s (170 MB/s, peak 120 MB), restic 2.00 s (128 MB/s, peak 150 MB), ratio 0.75
        /^(capture|restore): / {
            act = $1; sub(":", "", act)
            against = act == "capture" ? "backup + check --read-data" : "restore + sync"
            peak = $7 + 0
            printf "vault: %s of %d MB\t%s s, restic %s s\t<= restic %s\t%.2f\n", act, mb, $3, $10, against, $NF
            printf "  its memory\t%d MB at most\t< 200 MB\t%.2f\n", peak, peak / 200
        }'
}

status() { "$engine" status "$ripcord"; }

for name in "${names[@]}"; do
    say "$name"
    "$name" | tee -a "$table" >&2
done

echo
awk -F '\t' '
    BEGIN { rows = 1; cell[1, 1] = "what"; cell[1, 2] = "figure"; cell[1, 3] = "wanted"; cell[1, 4] = "ratio" }
    { rows++; for (i = 1; i <= 4; i++) cell[rows, i] = $i }
    END {
        for (r = 1; r <= rows; r++) for (i = 1; i <= 4; i++) if (length(cell[r, i]) > width[i]) width[i] = length(cell[r, i])
        for (r = 1; r <= rows; r++) {
            printf "%-*s  %-*s  %-*s  %*s\n", width[1], cell[r, 1], width[2], cell[r, 2], width[3], cell[r, 3], width[4], cell[r, 4]
        }
    }' "$table"

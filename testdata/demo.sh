#!/usr/bin/env bash
# Shows what mediabolt does, on the sample media, in a scratch directory.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin/mediabolt
media=$PWD/testdata/media
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export MEDIABOLT_STORE=$scratch/store

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ mediabolt %s\n' "$*"; "$bin" "$@"; }

say "Two sessions store media; the picture of the second is the one of the first"
cd "$media"
run put --session trip --conversation monday sunrise.png tone.wav clip.mp4
run put --session work --conversation report sunrise.png letter.pdf

say "Plain files, each with a sidecar that mirrors its references"
(cd "$MEDIABOLT_STORE" && find . -path ./.mediabolt -prune -o -type f -print | sort)

say "The shared picture is there once"
run stats

say "One comes back, byte for byte"
id=$("$bin" ls --session work --json | head -n 1 | sed 's/.*"id":"\([^"]*\)".*/\1/')
run get "$id" -o "$scratch/back.png"
cmp sunrise.png "$scratch/back.png" && echo "identical"

say "The first session deletes its reference; the second keeps the picture"
first=$("$bin" ls --session trip --json | head -n 1 | sed 's/.*"id":"\([^"]*\)".*/\1/')
run rm "$first"
"$bin" cat "$id" | cmp - sunrise.png && echo "still identical"

say "A writer is killed (SIGKILL) while it stores"
mkdir "$scratch/many"
for i in $(seq 1 3000); do echo "document $i" > "$scratch/many/$i.txt"; done
"$bin" put -r --session killed "$scratch/many" > "$scratch/acknowledged" 2> /dev/null &
writer=$!
while [ "$(wc -l < "$scratch/acknowledged")" -lt 200 ]; do sleep 0.05; done
kill -9 "$writer" 2> /dev/null || true
wait "$writer" 2> /dev/null || true
echo "$(wc -l < "$scratch/acknowledged") of 3000 files were acknowledged"

say "Opening recovers what was in flight; every acknowledged file is there"
run --verbose stats
cut -d ' ' -f 1 "$scratch/acknowledged" | sort > "$scratch/want"
"$bin" ls --session killed --json | sed 's/.*"id":"\([^"]*\)".*/\1/' | sort > "$scratch/have"
missing=$(comm -23 "$scratch/want" "$scratch/have" | wc -l)
echo "acknowledged and missing: $missing"
[ "$missing" -eq 0 ]

say "Everything is checked: rows, files, checksums, refcounts, sidecars"
run verify

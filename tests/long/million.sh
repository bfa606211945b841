#!/usr/bin/env bash
# A million parked green threads (SHORT=1: a hundred thousand) under the machine's own vm.max_map_count.
# Prints what each takes of memory (VmRSS) and of page tables (VmPTE).
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

n=1000000
[[ -z ${SHORT:-} ]] || n=100000
echo "ran: vm.max_map_count = $(cat /proc/sys/vm/max_map_count)"
cargo build --release --manifest-path benches/peers/Cargo.toml --bin ours || exit 1
out=$(timeout 300 "${CARGO_TARGET_DIR:-benches/peers/target}/release/ours" mem "$n") || { echo "failed with $?: $out"; exit 1; }
value() { sed -n "s/.*\"metric\":\"$1\",\"value\":\([0-9.]*\).*/\1/p" <<<"$out"; }
rss=$(value rss_each) pte=$(value pte_each)
[[ -n $rss && -n $pte ]] || { echo "no figures in: $out"; exit 1; }
isolated=$(value rss_each_isolated) tables=$(value pte_each_isolated)
[[ -n $isolated && -n $tables ]] || { echo "no figures of isolated ones in: $out"; exit 1; }
echo "ran: isolated ones, each: VmRSS $isolated B, VmPTE $tables B"
echo "ran: $n parked green threads, each: VmRSS $rss B, VmPTE $pte B, made in $(value create) ns, woken in $(value wake) ns"

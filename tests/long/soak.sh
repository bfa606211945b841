#!/usr/bin/env bash
# Echo clients and their server in one process: 9,000 connections for 30 seconds (SHORT=1: 500 for 3).
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

connections=9000 seconds=30
[[ -z ${SHORT:-} ]] || connections=500 seconds=3
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
# both ends of each connection are in this process
if [[ $(ulimit -n) != unlimited ]] && (($(ulimit -n) < 2 * connections + 100)); then
    echo "needs $((2 * connections + 100)) open files, may have $(ulimit -n)"
    exit 1
fi
cargo build --release --example echo_soak || exit 1
line=$(timeout $((seconds + 120)) target/release/examples/echo_soak --connections "$connections" --seconds "$seconds") ||
    { echo "failed with $?: $line"; exit 1; }
[[ $line =~ requests\ [1-9] && $line =~ errors\ 0\ wrong_bytes\ 0 ]] || { echo "not clean: $line"; exit 1; }
echo "ran: $line"

#!/usr/bin/env bash
# The echo soak under valgrind's memcheck: 50 connections for 5 seconds (SHORT=1: 2).
# A move of the stack pointer by over 64 KiB is a switch to another stack, not a large frame on this one:
# by its default of 2 MB memcheck would take neighbouring stacks for one.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

seconds=5
[[ -z ${SHORT:-} ]] || seconds=2
cargo build --release --example echo_soak || exit 1
line=$(valgrind --quiet --error-exitcode=99 --suppressions=tests/long/valgrind.supp --max-stackframe=65536 --num-callers=30 \
    target/release/examples/echo_soak --connections 50 --seconds "$seconds") || { echo "$line"; exit 1; }
[[ $line =~ requests\ [1-9] ]] || { echo "no request was served: $line"; exit 1; }
echo "ran: under valgrind, $line"

#!/usr/bin/env bash
# The unit and integration tests under AddressSanitizer, which is told of every stack switch.
# The bootstrap variable lets a stable compiler take the flag. Leaks are not looked for: green threads
# that are parked at exit are left as they are, by design.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export ASAN_OPTIONS="detect_stack_use_after_return=0:detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# Not here: tests that fault on purpose (the sanitizer takes faults, alternate stacks and frame sizes for its own) and
# tests that take the address space away (its shadow needs terabytes of it). Nor what rests on thread-locals of one's own:
# the sanitizer keeps its own state for each OS thread, so isolation, and patching with it, is off; nor forks beside busy OS
# threads, for its run-time has locks that a fork knows nothing of.
skip=(--skip stack::overflow --skip thread::overflow:: --skip no_memory --skip without_guard_markers --skip without_address_space
    --skip sys::signal --skip sys::fork --skip a_forked_child_does --skip end_of_the_map_count --skip cannot_be_unmapped --skip unknown_glibc
    --skip bodies_of_any_alignment --skip gets_no_stack --skip thread::memory::
    --skip a_shutdown_in_a_destructor --skip isolation:: --skip patched_ --skip fetch_three --skip crawl::)
# With SHORT=1 no examples either, which take long to build and to run here.
if [[ -n ${SHORT:-} ]]; then
    export RUSTFLAGS="$RUSTFLAGS --cfg lean" # without the packages that only examples need (see Cargo.toml)
fi
args=(--features sanitizer --target x86_64-unknown-linux-gnu --target-dir target/asan)

ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
mkdir -p target/asan # for the log, whoever builds first
[[ -n ${SHORT:-} ]] || cargo build "${args[@]}" --examples || exit 1
# Memory that is used after the hub was freed: a program of tests/cases, which builds the library once more.
if [[ -z ${SHORT:-} ]]; then
    cargo build "${args[@]}" --manifest-path tests/cases/Cargo.toml --bin uaf_generator || exit 1
    target/asan/x86_64-unknown-linux-gnu/debug/uaf_generator || exit 1
fi
cargo test "${args[@]}" --lib --test it --test stuck --no-fail-fast "$@" -- "${skip[@]}" 2>&1 | tee target/asan/log
code=$?
echo "ran: address sanitizer, $(awk '/^test result:/ { n += $4 } END { print n + 0 }' target/asan/log) tests passed"
exit $code

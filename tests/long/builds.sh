#!/usr/bin/env bash
# Patching in each kind of build (SHORT=1: in the one kind that the tests do not have): the example `patched_sleep` is built
# and run as debug, release, thin and fat LTO, `panic=abort`, and with a dynamic std. Each must say that two workers took 1.0 s together, not 1.9 s.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0 ran=0
libs=$(rustc --print target-libdir)
# check NAME FLAGS CARGO-ARGUMENTS...
check() {
    local name=$1 flags=$2 dir=target/builds/${1// /-} binary
    shift 2
    if ! RUSTFLAGS="$flags" cargo build -q --target-dir "$dir" --example patched_sleep "$@"; then
        echo "$name: does not build"
        failed=$((failed + 1))
        return
    fi
    binary=$(find "$dir" -path '*/examples/patched_sleep' -type f | head -n 1)
    if LD_LIBRARY_PATH=$libs timeout 20 "$binary" | grep -qx 'took 1\.[0-4] s'; then
        ran=$((ran + 1))
    else
        echo "$name: wrong"
        failed=$((failed + 1))
    fi
}

check "panic abort" "-C panic=abort" --release
if [[ -z ${SHORT:-} ]]; then
    check "debug" ""
    check "release" "" --release
    check "thin lto" "" --release --config 'profile.release.lto="thin"'
    check "fat lto" "" --release --config 'profile.release.lto="fat"'
    check "dynamic std" "-C prefer-dynamic" --release
fi
echo "ran: $ran kinds of build, $failed failed"
((failed == 0 && ran > 0))

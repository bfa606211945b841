#!/usr/bin/env bash
# Patching in each kind of build (SHORT=1: in the one kind that the tests do not have): the example `patched_sleep` is built
# and run as debug, release, thin and fat LTO, `panic=abort`, and with a dynamic std. Each must say that two workers took 1.0 s together, not 1.9 s.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0 ran=0
# A package of the example alone: as an example of the library it would have all the tests depend on built, for each kind.
package=target/builds/package
mkdir -p "$package" && cp Cargo.lock "$package/" && cat >"$package/Cargo.toml" <<END || exit 1
[workspace]

[package]
name = "patched_sleep"
version = "0.0.0"
edition = "2024"

[[bin]]
name = "patched_sleep"
path = "$PWD/examples/patched_sleep.rs"

[dependencies]
greenthread = { path = "$PWD", features = ["monkey"] }
END
libs=$(rustc --print target-libdir)
# check NAME FLAGS CARGO-ARGUMENTS...
check() {
    local name=$1 flags=$2 dir=target/builds/${1// /-}
    shift 2
    if ! RUSTFLAGS="$flags" cargo build -q --manifest-path "$package/Cargo.toml" --target-dir "$dir" "$@"; then
        echo "$name: does not build"
        failed=$((failed + 1))
        return
    fi
    if LD_LIBRARY_PATH=$libs timeout 20 "$dir"/*/patched_sleep | grep -qx 'took 1\.[0-4] s'; then
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

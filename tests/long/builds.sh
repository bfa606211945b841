#!/usr/bin/env bash
# A program of the library in each kind of build, run (SHORT=1: in the one kind that the tests do not have). Each must say that
# two workers took 1.0 s together, not 1.9 s.
#
# x86-64 and aarch64 with glibc: the example `patched_sleep`, in debug, release, thin and fat LTO, `panic=abort`, and with a
# dynamic std; on x86-64 also for the processor of this machine. aarch64 runs in an emulator (QEMU=PATH: another one than
# `qemu-aarch64`; ROOT=FOLDER: another libc). musl, which cannot be patched: the same program with the library's own `sleep`,
# linked statically. What cannot be had here is skipped, with a line that says so.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0 ran=0 skipped=0
GNU=x86_64-unknown-linux-gnu ARM=aarch64-unknown-linux-gnu MUSL=x86_64-unknown-linux-musl
HOST=$(rustc -vV | awk '/^host: / { print $2 }')
std=$(rustc --print sysroot)/lib/rustlib
root=${ROOT:-/usr/aarch64-linux-gnu}
QEMU=${QEMU:-$(command -v qemu-aarch64)}
work=target/builds
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

# package NAME SOURCE FEATURES: a package of this program alone. As an example of the library it would have all that the
# tests depend on built, for each kind.
package() {
    mkdir -p "$work/$1" && cp Cargo.lock "$work/$1/" && cat >"$work/$1/Cargo.toml" <<END || exit 1
[workspace]

[package]
name = "probe"
version = "0.0.0"
edition = "2024"

[[bin]]
name = "probe"
path = "$2"

[dependencies]
greenthread = { path = "$PWD", features = [$3] }
END
}
package patched "$PWD/examples/patched_sleep.rs" '"monkey"'
package plain "$PWD/$work/sleep.rs" ''
sed -e 's/^use std::thread::sleep;/use greenthread::sleep;/' -e '/monkey::patch_all/d' -e 's/{monkey, spawn}/spawn/' \
    examples/patched_sleep.rs >"$work/sleep.rs" || exit 1

# program TARGET FILE: runs it, with the target's libraries.
program() {
    case $1 in
    "$ARM") GREEN_ISOLATION=1 timeout 60 "$QEMU" -L "$root" -E "LD_LIBRARY_PATH=$std/$1/lib" "$2" ;;
    *) LD_LIBRARY_PATH=$std/$1/lib timeout 20 "$2" ;;
    esac
}

# check TARGET NAME FLAGS CARGO-ARGUMENTS...
check() {
    local target=$1 name="$1, $2" flags=$3 dir="$work/$1-${2// /-}" from=patched
    shift 3
    [[ $target != "$MUSL" ]] || from=plain
    if ! RUSTFLAGS="$flags" cargo build -q --manifest-path "$work/$from/Cargo.toml" --target-dir "$dir" \
        --target "$target" "$@"; then
        echo "$name: does not build"
        failed=$((failed + 1))
    elif program "$target" "$dir/$target"/*/probe | grep -qx 'took 1\.[0-4] s'; then
        ran=$((ran + 1))
    else
        echo "$name: wrong"
        failed=$((failed + 1))
    fi
}

# missing TARGET: what the target needs and is not here; nothing if all is.
missing() {
    [[ -d $std/$1/lib ]] || echo "no standard library for it"
    case $1 in
    "$ARM")
        command -v aarch64-linux-gnu-gcc >/dev/null || echo "no aarch64-linux-gnu-gcc"
        [[ -x $QEMU ]] || echo "no qemu-aarch64"
        [[ -e $root/lib/ld-linux-aarch64.so.1 ]] || echo "no libc in $root"
        ;;
    *) [[ $HOST == x86_64-*-linux-* ]] || echo "not the processor of this machine" ;;
    esac
}

# kinds TARGET: all that the target has.
kinds() {
    check "$1" "debug" ""
    check "$1" "release" "" --release
    check "$1" "thin lto" "" --release --config 'profile.release.lto="thin"'
    check "$1" "fat lto" "" --release --config 'profile.release.lto="fat"'
    check "$1" "panic abort" "-C panic=abort" --release
    [[ $1 == "$MUSL" ]] || check "$1" "dynamic std" "-C prefer-dynamic" --release
    [[ $1 != "$GNU" ]] || check "$1" "native processor" "-C target-cpu=native" --release
}

if [[ -n ${SHORT:-} ]]; then
    check "$HOST" "panic abort" "-C panic=abort" --release
else
    for target in "$GNU" "$ARM" "$MUSL"; do
        without=$(missing "$target" | paste -sd,)
        if [[ -z $without ]]; then
            kinds "$target"
        else
            echo "skipped: $target: $without"
            skipped=$((skipped + 1))
        fi
    done
fi
echo "ran: $ran kinds of build, $failed failed, $skipped targets skipped"
((failed == 0 && ran > 0))

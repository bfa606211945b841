#!/usr/bin/env bash
# The tests for aarch64 with glibc, in an emulator: tests/it and tests/monkey, in debug and in release with LTO. SHORT=1: the
# parts in which the processor matters most, in debug only. QEMU=PATH: another emulator than `qemu-aarch64`.
#
# Tests that start themselves need the system to run such programs: `binfmt_misc` in a user namespace of its own (Linux 6.7).
# tests/long/aarch64.skip has the tests that are left out, with reasons. A test that fails is run once more, alone: many
# tests measure time, and the emulator is slow.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

target=aarch64-unknown-linux-gnu
root=${ROOT:-/usr/aarch64-linux-gnu}
QEMU=${QEMU:-$(command -v qemu-aarch64)}

skip() {
    echo "skipped: aarch64: $1"
    exit 0
}
command -v aarch64-linux-gnu-gcc >/dev/null || skip "no aarch64-linux-gnu-gcc"
[[ -d $(rustc --print sysroot)/lib/rustlib/$target ]] || skip "no standard library for $target"
[[ -e $root/lib/libc.so.6 ]] || skip "no libc in $root"
[[ -x $QEMU ]] || skip "no qemu-aarch64"

# emulated COMMAND...: runs it where the system runs programs for aarch64.
emulated() {
    QEMU=$QEMU QEMU_LD_PREFIX=$root unshare --user --map-root-user --mount bash -c '
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
            magic="\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00" &&
            mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff" &&
            printf "%s" ":greenthread:M::$magic:$mask:$QEMU:F" >/proc/sys/fs/binfmt_misc/register || exit 125
        exec "$@"' emulated "$@"
}
emulated true 2>/dev/null || skip "no binfmt_misc in a user namespace (Linux 6.7)"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# Without what only the example `crawl` and the benchmark need.
export RUSTFLAGS="--cfg lean ${RUSTFLAGS:-}"
# Isolation is off there unless it is asked for.
export GREEN_ISOLATION=1
failed=0 passed=0
log=target/aarch64.log
: >"$log"

# run BINARY FILE SECONDS FILTERS...: runs the tests whose names contain one of the filters (all, if there is none), but not
# those that are left out.
run() {
    local binary=$1 file=$2 seconds=$3 names name output again=()
    shift 3
    mapfile -t names < <(emulated "$file" --list "$@" 2>/dev/null | sed -n 's/: test$//p' |
        awk -v binary="$binary" '
            FNR == NR { if ($1 == binary) out[$2]; next }
            { for (name in out) if ($1 == name || (name ~ /::$/ && index($1, name) == 1)) next; print $1 }
        ' tests/long/aarch64.skip -)
    if ((${#names[@]} == 0)); then
        echo "$binary: no tests"
        failed=$((failed + 1))
        return
    fi
    output=target/aarch64-$binary.log
    emulated timeout "$seconds" "$file" --test-threads 3 --exact "${names[@]}" >"$output" 2>&1
    local rc=$?
    cat "$output" >>"$log"
    # The name may be at the end of a line that a child has begun.
    passed=$((passed + $(grep -c '^test .* \.\.\. ok$' "$output")))
    mapfile -t again < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
    if ((rc == 124 || (rc != 0 && ${#again[@]} == 0))); then
        echo "$binary: ended with $rc: $(grep -v '^test ' "$output" | tail -n 1)"
        failed=$((failed + 1))
    fi
    for name in "${again[@]}"; do
        if emulated timeout 120 "$file" --exact "$name" >>"$log" 2>&1; then
            passed=$((passed + 1))
        else
            echo "$binary: failed: $name"
            failed=$((failed + 1))
        fi
    done
}

# build ARGUMENTS...: builds both binaries, and sets `it` and `monkey` to them.
build() {
    local built
    built=$(cargo test "$@" --target "$target" --test it --test monkey --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') || return 1
    it=$(grep '/it-[0-9a-f]*$' <<<"$built") monkey=$(grep '/monkey-[0-9a-f]*$' <<<"$built")
    [[ -x $it && -x $monkey ]]
}

build || { echo "does not build"; exit 1; }
if [[ -n ${SHORT:-} ]]; then
    run it "$it" 180 isolation thread::local hub:: sync::
    run monkey "$monkey" 60 a_c_ a_close a_kill a_std locks children fair:: names channels
else
    run it "$it" 1800
    run monkey "$monkey" 900
    build --release --config 'profile.release.lto="thin"' || { echo "does not build in release"; exit 1; }
    run it "$it" 1200
    run monkey "$monkey" 600
fi
echo "ran: $passed passed, $failed failed; tests/long/aarch64.skip has what is left out"
((failed == 0 && passed > 0))

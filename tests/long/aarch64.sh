#!/usr/bin/env bash
# The tests for aarch64 with glibc, in an emulator: tests/it and tests/monkey, in debug and in release with LTO, with the libc
# of the cross compiler and the debug build once more with a newer one. SHORT=1: the parts in which the processor matters
# most, in debug only. QEMU=PATH: another emulator than `qemu-aarch64`. ROOT=FOLDER: another libc, which is then the only one.
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
[[ -e $root/lib/ld-linux-aarch64.so.1 ]] || skip "no libc in $root"
[[ -x $QEMU ]] || skip "no qemu-aarch64"

# emulated COMMAND...: runs it where the system runs programs for aarch64.
emulated() {
    QEMU=$QEMU QEMU_LD_PREFIX=$root unshare --user --map-root-user --mount bash -c '
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
            magic="\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00" &&
            mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff" &&
            printf "%s" ":greenthread:M::$magic:$mask:$QEMU:PF" >/proc/sys/fs/binfmt_misc/register || exit 125
        exec "$@"' emulated "$@"
}
emulated true 2>/dev/null || skip "no binfmt_misc in a user namespace (Linux 6.7)"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# Without what only the example `crawl` and the benchmark need.
export RUSTFLAGS="--cfg lean ${RUSTFLAGS:-}"
# Isolation is off there unless it is asked for.
export GREEN_ISOLATION=1
# The main version of the emulator, for which tests/long/aarch64.skip may ask.
version=$("$QEMU" --version | sed -n 's/^qemu-aarch64 version \([0-9]*\).*/\1/p')
failed=0 passed=0
log=target/aarch64.log
: >"$log"

# run KIND BINARY FILE SECONDS FILTERS...: runs the tests whose names contain one of the filters (all, if there is none), but
# not those that are left out.
run() {
    local kind=$1 binary=$2 file=$3 seconds=$4 all names name output again=() start=$SECONDS before=$passed
    shift 4
    all=$(emulated "$file" --list "$@" 2>/dev/null | sed -n 's/: test$//p')
    mapfile -t names < <(awk -v binary="$binary" -v version="$version" '
            FNR == NR { if ($1 == binary && ($3 !~ /^qemu>=/ || version >= substr($3, 7) + 0)) out[$2]; next }
            { for (name in out) if ($1 == name || (name ~ /::$/ && index($1, name) == 1)) next; print $1 }
        ' tests/long/aarch64.skip - <<<"$all")
    if ((${#names[@]} == 0)); then
        echo "$kind, $binary: no tests"
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
        echo "$kind, $binary: ended with $rc: $(grep -v '^test ' "$output" | tail -n 1)"
        failed=$((failed + 1))
    fi
    for name in "${again[@]}"; do
        if emulated timeout 120 "$file" --exact "$name" >>"$log" 2>&1; then
            passed=$((passed + 1))
        else
            echo "$kind, $binary: failed: $name"
            failed=$((failed + 1))
        fi
    done
    echo "$kind, $binary: $((passed - before)) of ${#names[@]} passed, $(($(wc -l <<<"$all") - ${#names[@]})) left out," \
        "$((SECONDS - start)) s"
}

# build ARGUMENTS...: builds both binaries, and sets `it` and `monkey` to them.
build() {
    local built
    built=$(cargo test "$@" --target "$target" --test it --test monkey --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') || return 1
    it=$(grep '/it-[0-9a-f]*$' <<<"$built") monkey=$(grep '/monkey-[0-9a-f]*$' <<<"$built")
    [[ -x $it && -x $monkey ]]
}

# newer FOLDER: unpacks the libc of a newer Debian there. apt has a configuration of its own for it: what the system knows
# of packages stays as it is.
newer() {
    local dir=$1 source
    rm -rf "$dir" && mkdir -p "$dir/root/usr/lib" "$dir/none" "$dir"/{lists,archives}/partial || return
    ln -s usr/lib "$dir/root/lib" && : >"$dir/status"
    source=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 2>/dev/null | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $source trixie main" >"$dir/sources.list"
    cat >"$dir/apt.conf" <<END
Dir { State "$dir"; State::status "$dir/status"; Cache "$dir"; }
Dir::Etc { sourcelist "$dir/sources.list"; sourceparts "$dir/none"; parts "$dir/none"; preferencesparts "$dir/none"; }
APT { Architecture "arm64"; Architectures { "arm64"; }; Sandbox::User "root"; }
Acquire { Languages "none"; Check-Valid-Until "false"; }
END
    (export APT_CONFIG=$dir/apt.conf && cd "$dir" && apt-get -q update && apt-get -q download libc6 libgcc-s1 &&
        for package in ./*.deb; do dpkg-deb -x "$package" root || exit; done) >"$dir/log" 2>&1
}

build || { echo "does not build"; exit 1; }
if [[ -n ${SHORT:-} ]]; then
    run debug it "$it" 180 isolation thread::local hub:: sync::
    run debug monkey "$monkey" 60 a_c_ a_close a_kill a_std locks children fair:: names channels
else
    run debug it "$it" 1800
    run debug monkey "$monkey" 900
    if [[ -n ${ROOT:-} ]]; then
        :
    elif newer "$PWD/target/aarch64-libc"; then
        root=$PWD/target/aarch64-libc/root
        kind="glibc $(grep -aoE 'stable release version [0-9.]+[0-9]' "$root/usr/lib/aarch64-linux-gnu/libc.so.6" |
            grep -oE '[0-9.]+$')"
        run "$kind" it "$it" 1800
        run "$kind" monkey "$monkey" 900
        root=/usr/aarch64-linux-gnu
    else
        echo "skipped: a newer glibc: $(tail -n 1 target/aarch64-libc/log)"
    fi
    build --release --config 'profile.release.lto="thin"' || { echo "does not build in release"; exit 1; }
    run release it "$it" 1200
    run release monkey "$monkey" 600
fi
echo "ran: $passed passed, $failed failed; tests/long/aarch64.skip has what is left out"
((failed == 0 && passed > 0))

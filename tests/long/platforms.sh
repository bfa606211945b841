#!/usr/bin/env bash
# Each platform that README.md's table names: the library passes the compiler and its lints with all features that the
# target has. Where musl runs natively, its tests (SHORT=1: a part of them). Without SHORT=1 also: the layout for large pages
# on this processor, and a static server in an empty folder. A target that cannot be had here is skipped, with a line that says
# so.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0 ran=0 skipped=()
# check NAME COMMAND...
check() {
    local name=$1
    shift
    ran=$((ran + 1))
    if ! "$@"; then
        echo "$name: failed"
        failed=$((failed + 1))
    fi
}

# The features that a target has: monkey is glibc's; tls compiles C.
features() {
    local target=$1 all
    all=$(awk -F '[ =]' '/^\[/ { on = $0 == "[features]"; next }
        on && /^[a-z]/ && $1 != "default" && $1 != "sanitizer" { print $1 }' Cargo.toml)
    [[ $target == *-linux-gnu ]] || all=$(grep -vx monkey <<<"$all")
    compiler "$target" >/dev/null || all=$(grep -vx tls <<<"$all")
    paste -sd, <<<"$all"
}

# A C compiler for the target.
compiler() {
    local found
    case $1 in
    "$HOST") found=cc ;;
    aarch64-unknown-linux-gnu) found=aarch64-linux-gnu-gcc ;;
    x86_64-unknown-linux-gnu) found=x86_64-linux-gnu-gcc ;;
    x86_64-unknown-linux-musl) [[ $HOST == x86_64-* ]] && found=musl-gcc ;;
    esac
    command -v "${found:-no-such-compiler}"
}

# has TARGET: whether Rust's std for the target is here, or can be had.
has() {
    [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]] && return
    command -v rustup >/dev/null && timeout 120 rustup -q target add "$1" >/dev/null 2>&1
}

HOST=$(rustc -vV | awk '/^host: / { print $2 }')
TARGETS=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd)
export CC_x86_64_unknown_linux_musl=musl-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

for target in "${TARGETS[@]}"; do
    if ! has "$target"; then
        skipped+=("Rust's std for $target")
        continue
    fi
    features=$(features "$target")
    [[ ,$features, == *,tls,* ]] || skipped+=("tls for $target: no C compiler")
    # clippy is the compiler with its lints on.
    check "$target, no feature" cargo clippy -q --lib --target "$target" -- -D warnings
    check "$target, $features" cargo clippy -q --lib --target "$target" --features "$features" -- -D warnings
done

# One line, in plain words, where a feature cannot be.
refused() {
    ! cargo check -q --lib --target "$1" --features monkey 2>"$TMP/refused" &&
        grep -q 'the feature `monkey` works on Linux with glibc only' "$TMP/refused"
}
TMP=$(mktemp -d) && trap 'rm -rf "$TMP"' EXIT
for target in x86_64-unknown-linux-musl aarch64-apple-darwin; do
    ! has "$target" || check "$target refuses monkey" refused "$target"
done

# Long: what runs here.
MUSL=x86_64-unknown-linux-musl
# The server answers in a folder that holds nothing but its binary.
echo_in_an_empty_folder() {
    local server port answer
    cargo build -q --target "$MUSL" --example echo_server || return
    mkdir -p "$TMP/empty" && cp "target/$MUSL/debug/examples/echo_server" "$TMP/empty/server" || return
    port=$((20000 + RANDOM % 10000))
    chroot "$TMP/empty" /server "127.0.0.1:$port" >"$TMP/server.log" 2>&1 &
    server=$!
    for _ in {1..50}; do
        answer=$(exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'hello\n' >&3 && head -n 1 <&3) 2>/dev/null && break
        sleep 0.1
    done
    kill "$server"
    wait "$server" 2>/dev/null
    [[ $answer == hello ]]
}
if [[ $HOST != x86_64-* ]] || ! has "$MUSL" || ! command -v musl-gcc >/dev/null; then
    skipped+=("running what is built for $MUSL")
elif [[ -n ${SHORT:-} ]]; then
    # Without what only the example `crawl` and the benchmark need.
    RUSTFLAGS="--cfg lean" check "tests for $MUSL" cargo test -q --target "$MUSL" --test it -- thread:: process:: hub:: io:: time::
else
    check "tests for $MUSL" cargo test -q --target "$MUSL" --test it -- --skip examples::
    if ((EUID == 0)); then
        check "a static server" echo_in_an_empty_folder
    else
        skipped+=("a static server: chroot needs root")
    fi
fi
if [[ -z ${SHORT:-} && $HOST == x86_64-* ]]; then
    RUSTFLAGS="--cfg green_large_page" check "layout for large pages" \
        cargo test -q --lib --target-dir target/large-page -- stack:: sys::mem::
fi

((${#skipped[@]} == 0)) || printf 'ran: not here: %s\n' "${skipped[@]}"
echo "ran: $ran checks of ${#TARGETS[@]} platforms, $failed failed"
((failed == 0))

#!/usr/bin/env bash
# Everything that must hold before a change goes in: `bash tests/run.sh` in a fresh clone.
#
#     bash tests/run.sh            all steps
#     bash tests/run.sh quick      what to run while writing: formatting, lints, the tests of the debug build, examples apart
#     bash tests/run.sh list       the names of the steps
#     bash tests/run.sh NAME...    these steps only, as in `bash tests/run.sh loom 'tests release'`
#
# Each step prints a headline and its duration; its output is in target/run/NAME.log, and the end of
# it is shown when the step fails. The table at the end has each step's duration and the processor time it took. The last line
# is `N passed, M failed`: the tests that cargo ran, and a failed step without a failed test counts as one. All ends within
# LIMIT seconds.
#
# With ALL=1 (and a larger LIMIT): also the lints of the packages beside, the cases, a part of the tests for aarch64 in an
# emulator, and the examples in release and on the portable reactor.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

LIMIT=${LIMIT:-3600}
LOGS=target/run
QUICK=(fmt clippy 'tests debug')
ONLY=("$@")
[[ ${1:-} != quick ]] || ONLY=("${QUICK[@]}")
passed=0 failed=0 table=() known=0
rm -rf "$LOGS" && mkdir -p "$LOGS" || exit 1

# What the tests need besides Rust; installed when missing. RUNLEVEL=1 keeps their services from being
# started: the tests start servers of their own.
packages() {
    local want=() install
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust first"; return 1; }
    command -v strace >/dev/null || want+=(strace)
    command -v valgrind >/dev/null || want+=(valgrind libc6-dbg)
    command -v gcc >/dev/null || want+=(gcc libc6-dev)
    command -v make >/dev/null || want+=(make)
    # The servers and C libraries of the compatibility tests and of some examples, which start the servers themselves.
    command -v redis-server >/dev/null || want+=(redis-server)
    command -v mariadb-install-db >/dev/null && [[ -x /usr/sbin/mariadbd ]] || want+=(mariadb-server)
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || want+=(postgresql)
    command -v pkg-config >/dev/null || want+=(pkg-config)
    pkg-config --exists openssl 2>/dev/null || want+=(libssl-dev)
    pkg-config --exists libcurl 2>/dev/null || want+=(libcurl4-openssl-dev)
    pkg-config --exists sqlite3 2>/dev/null || want+=(libsqlite3-dev)
    command -v gdb >/dev/null || want+=(gdb)
    # For "platforms": what runs on this processor with musl.
    [[ $(uname -m) != x86_64 ]] || command -v musl-gcc >/dev/null || want+=(musl-tools)
    ((${#want[@]})) || return 0
    install="apt-get install -y --no-install-recommends ${want[*]}"
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "missing; as root run: apt-get update && $install"
        return 1
    fi
    echo "installing: ${want[*]}"
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    { apt-get update && $install; } >"$LOGS/packages.log" 2>&1 || { tail -n 30 "$LOGS/packages.log"; return 1; }
}

# The features that a user may turn on, from Cargo.toml (`sanitizer` belongs to tests/long/asan.sh).
features() {
    awk -F '[ =]' '/^\[/ { on = $0 == "[features]"; next }
        on && /^[a-z]/ && $1 != "default" && $1 != "sanitizer" { printf "%s%s", n++ ? "," : "", $1 }' Cargo.toml
}

# Whether the step is to run.
wanted() {
    local name
    if [[ ${ONLY[0]:-} == list ]]; then
        echo "$1"
        return 1
    fi
    ((${#ONLY[@]})) || return 0
    for name in "${ONLY[@]}"; do
        [[ $name != "$1" ]] || return 0
    done
    return 1
}

# Sets `processor` to the processor time, in hundredths of a second, of all that has run so far. In this shell: in a
# command substitution `times` would know of nothing.
processor() {
    times >"$LOGS/times"
    processor=$(awk 'NR == 2 { gsub(/[ms]/, " "); print int(6000 * ($1 + $3) + 100 * ($2 + $4)) }' "$LOGS/times")
}

# step KIND NAME COMMAND...   KIND is `tests` (must have run some) or `tool`.
step() {
    wanted "$2" || return 0
    known=$((known + 1))
    processor
    local before=$processor
    local kind=$1 name=$2 log="$LOGS/${2// /-}.log" start=$SECONDS left=$((LIMIT - SECONDS)) code=0 ok=0 bad=0
    shift 2
    printf '\n== %s\n' "$name"
    if ((left > 0)); then
        timeout --kill-after=5 "$left" "$@" >"$log" 2>&1 </dev/null || code=$?
    else
        code=124
        echo "no time left" >"$log"
    fi
    read -r ok bad < <(awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i - 1)
        if ($i == "failed;") f += $(i - 1) } } END { print p + 0, f + 0 }' "$log")
    [[ $kind != tests || $code != 0 ]] || ((ok + bad)) || { code=1; echo "ran no test" >>"$log"; }
    ((code == 0 || bad)) || bad=1
    ((bad == 0 || code)) || code=1
    if ((code)); then
        echo "-- the end of $log"
        tail -n 60 "$log"
        ((code != 124)) || echo "-- out of time"
    else
        grep -hE '^ran: ' "$log"
    fi
    passed=$((passed + ok)) failed=$((failed + bad))
    processor
    local what=ok
    ((code == 0)) || what=FAILED
    [[ $kind == tests || $ok != 0 ]] || ok=-
    table+=("$(printf '%-28s %-7s %7s %5ss %5ss' "$name" "$what" "$ok" $((SECONDS - start)) $(((processor - before) / 100)))")
    printf -- '-- %s, %s s\n' "$what" $((SECONDS - start))
}

# The same, with ALL=1 only.
also() {
    [[ -z ${ALL:-} ]] || step "$@"
}

[[ ${ONLY[0]:-} == list ]] || packages || { echo "0 passed, 1 failed"; exit 1; }
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
[[ ${ONLY[0]:-} == list ]] || echo "open files: $(ulimit -n), max_map_count: $(cat /proc/sys/vm/max_map_count 2>/dev/null), cores: $(nproc), $(rustc -V)"
export CARGO_TERM_COLOR=never RUST_BACKTRACE=1
# One place for what several of the packages depend on; and no more for the debugger than where a line is.
export CARGO_TARGET_DIR=$PWD/target CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
FEATURES=$(features)
# All steps of the debug build ask for the same features, TLS included: what is built for one is there for the others. The
# release build has what the crate's tests turn on by themselves, all but TLS: that is safe code, which the debug build tests,
# and ring and rustls, optimized, take long to build.
WITH=(${FEATURES:+--features "$FEATURES"})
# Where no example and no benchmark is built: without the packages that only these need (see Cargo.toml). A flag makes all
# units others, so all steps of the release build have it or none. With ALL=1 there are examples in release.
LEAN="--cfg lean"
[[ -z ${ALL:-} ]] || LEAN=""
PEERS=(--manifest-path benches/peers/Cargo.toml)
COMPAT=(--manifest-path tests/compat/Cargo.toml)
CASES=(--manifest-path tests/cases/Cargo.toml)
DRIVERS=(--manifest-path examples/drivers/Cargo.toml)
# What is the same in each build and on each reactor: it reads the repository.
ONCE=(--skip repo::)
# Without ALL: not the examples in each build and on each reactor; they would be built once more, and mostly sleep.
[[ -n ${ALL:-} ]] || ONCE+=(--skip examples::)
# A quick run does not build the examples.
DEBUG=()
[[ ${1:-} != quick ]] || DEBUG=(-- --skip examples::)
AXUM=(--manifest-path examples/axum/Cargo.toml)

step tool "fmt" cargo fmt --check
step tool "clippy" cargo clippy --all-targets "${WITH[@]}" -- -D warnings
# The tests and examples depend on the crate with all its features: this is it without.
step tool "clippy plain" cargo clippy --lib -- -D warnings
step tool "examples" cargo build --examples "${WITH[@]}"
# Overflow checks and debug assertions are on.
step tests "tests debug" cargo test --lib --tests --no-fail-fast "${WITH[@]}" "${DEBUG[@]}"
# The portable reactor, which goes through polling's own interface: all that has a hub, for a hub with nothing
# to do waits in its reactor; greenlets have none. The build is that of the step before.
step tests "tests polling" env GREEN_LOOP=polling cargo test --test it --no-fail-fast "${WITH[@]}" -- "${ONCE[@]}" \
    --skip greenlet::
also tool "examples release" cargo build --release --examples
# Optimized, as users build it: a value of a thread-local that the compiler keeps across a switch shows here only.
step tests "tests release" env RUSTFLAGS="$LEAN" cargo test --release --lib --tests --no-fail-fast -- "${ONCE[@]}"
step tool "compat fmt" cargo fmt "${COMPAT[@]}" --check
also tool "compat clippy" cargo clippy "${COMPAT[@]}" --all-targets -- -D warnings
step tests "compat" cargo test "${COMPAT[@]}" --no-fail-fast
step tool "cases fmt" cargo fmt "${CASES[@]}" --check
also tool "cases clippy" cargo clippy "${CASES[@]}" --all-targets --all-features -- -D warnings
also tool "cases" env SHORT=1 bash tests/long/cases.sh
step tool "drivers fmt" cargo fmt "${DRIVERS[@]}" --check
also tool "drivers clippy" cargo clippy "${DRIVERS[@]}" --all-targets -- -D warnings
step tests "drivers" cargo test "${DRIVERS[@]}" --no-fail-fast
step tool "axum fmt" cargo fmt "${AXUM[@]}" --check
also tool "axum clippy" cargo clippy "${AXUM[@]}" --all-targets -- -D warnings
step tests "axum" cargo test "${AXUM[@]}" --no-fail-fast
step tests "doctests" cargo test --doc "${WITH[@]}"
step tool "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps "${WITH[@]}"
step tests "loom" env RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}" \
    cargo test --release --lib --target-dir target/loom loom
step tests "address sanitizer" env SHORT=1 bash tests/long/asan.sh
step tool "peers fmt" cargo fmt "${PEERS[@]}" --check
also tool "peers clippy" cargo clippy --release "${PEERS[@]}" --all-targets -- -D warnings
# Only checked: their release build, with link-time optimization, is for measurements. "a hundred thousand" builds ours.
step tool "peers" cargo check "${PEERS[@]}"
# The builds of "tests release".
step tool "valgrind" env SHORT=1 RUSTFLAGS="$LEAN" bash tests/long/valgrind.sh
step tool "soak" env SHORT=1 RUSTFLAGS="$LEAN" bash tests/long/soak.sh
step tool "builds" env SHORT=1 bash tests/long/builds.sh
step tool "publish" bash tests/long/publish.sh
step tool "platforms" env SHORT=1 bash tests/long/platforms.sh
# The target was added in the step before. It takes some five minutes of processor time.
also tool "aarch64" env SHORT=1 bash tests/long/aarch64.sh
step tool "kernels" env SHORT=1 bash tests/long/kernels.sh
step tool "a hundred thousand" env SHORT=1 bash tests/long/million.sh

[[ ${ONLY[0]:-} != list ]] || exit 0
((known)) || { echo "no such step: ${ONLY[*]}; 'bash tests/run.sh list' names them"; exit 1; }
printf '\n%-28s %-7s %7s %6s %6s\n' step result tests time cpu
printf '%s\n' "${table[@]}"
printf 'all in %s s\n\n' "$SECONDS"
echo "$passed passed, $failed failed"
((failed == 0 && (passed > 0 || ${#ONLY[@]} > 0)))

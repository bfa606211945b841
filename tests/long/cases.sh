#!/usr/bin/env bash
# The programs of tests/cases, each of which shows one kind of fault and says by its exit code whether it holds: twice in both
# builds, and those that race 50 times. SHORT=1: once, in the debug build, and those that race three times. `cases.sh NAME..`:
# these only. Prints a line for each (name, build, times, failures, seconds), and at the end `N passed, M failed`. What a failed
# run said is in target/cases/.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# NAME ARGUMENTS | how often: each; race; once, which repeats by itself; quiet, the same, but not in a short run, for it wants
# a quiet machine | most seconds for one run
table='
    always_ready            | each | 400
    bomb                    | each | 30
    busy_poll               | each | 100
    dead_future             | each | 60
    deadline                | once | 300
    dns_starve              | each | 60
    double_async            | each | 60
    eintr                   | each | 60
    emfileaccept            | each | 60
    epoll_ms                | each | 60
    exhaust                 | each | 200
    fair                    | each | 400
    foreign_fds             | each | 100
    fork_locks 100          | race | 120
    jemalloc 1              | race | 60
    kth                     | each | 400
    late                    | each | 60
    leak_foreign_spawn      | each | 100
    locked_drop             | each | 60
    os_accept 1             | race | 60
    prefork                 | race | 100
    resolver                | each | 100
    scope_exit              | each | 30
    sel                     | race | 60
    select_fair             | each | 60
    selfwake                | each | 60
    self_waking             | each | 100
    send_timeout            | each | 60
    shutdown_unwinding      | each | 30
    sigpark                 | each | 60
    spike isolated          | each | 60
    spike local             | each | 60
    spin_yield              | each | 100
    stuck_pool              | race | 60
    t1_timeout_sleep        | each | 60
    t4_depth                | each | 30
    ticker                  | quiet | 300
    tls_after               | each | 60
    tlsclose                | each | 60
    tlswriter               | each | 60
    uaf_generator           | each | 30
    waker_drop_deregister   | each | 60
    yieldwork               | each | 60
'

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$TARGET CARGO_TERM_COLOR=never RUST_BACKTRACE=0
LOGS=target/cases
rm -rf "$LOGS" && mkdir -p "$LOGS" || exit 1
ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
each=2 race=50 quiet=1 builds=(debug release)
[[ -z ${SHORT:-} ]] || each=1 race=3 quiet=0 builds=(debug)
passed=0 failed=0

# build BUILD: all of them; and jemalloc, whose allocator is the whole process's, in a folder of its own.
build() {
    local flags=(--quiet --manifest-path tests/cases/Cargo.toml)
    [[ $1 == debug ]] || flags+=(--release)
    cargo build "${flags[@]}" --bins && cargo build "${flags[@]}" --features jemalloc --bin jemalloc
}

# run BUILD LIMIT TIMES NAME ARGUMENTS...
run() {
    local build=$1 limit=$2 times=$3 name=$4 bad=0 start=$SECONDS log code
    shift 4
    for ((n = 1; n <= times; n++)); do
        log="$LOGS/$name${1:+-$1}-$build-$n.log" code=0
        timeout --kill-after=5 "$limit" "$TARGET/$build/$name" "$@" >"$log" 2>&1 </dev/null || code=$?
        if ((code == 0)); then
            rm "$log"
            continue
        fi
        bad=$((bad + 1))
        echo "-- $name $* ended with $code; $log:"
        grep -vE '^(ok|test) ' "$log" | tail -n 8
        # One that fails each time need not take all of its times.
        ((bad < 5)) || break
    done
    printf '%-24s %-8s %3s times %3s failed %5ss\n' "$name $*" "$build" "$((n > times ? times : n))" "$bad" $((SECONDS - start))
    if ((bad)); then failed=$((failed + 1)); else passed=$((passed + 1)); fi
}

for build in "${builds[@]}"; do
    build "$build" || { echo "the $build build failed"; echo "0 passed, 1 failed"; exit 1; }
    while IFS='|' read -r what how limit; do
        read -ra words <<<"$what"
        ((${#words[@]})) || continue
        [[ $# == 0 || " $* " == *" ${words[0]} "* ]] || continue
        case $how in
            *race*) times=$race ;;
            *quiet*) times=$quiet ;;
            *once*) times=1 ;;
            *) times=$each ;;
        esac
        ((times)) || continue
        run "$build" "$((limit))" "$times" "${words[@]}"
    done <<<"$table"
done
echo "ran: $passed programs held, $failed did not, in $SECONDS s"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))

#!/usr/bin/env bash
# Old and strict kernels: for each row of the table, system calls fail with the errno of such a kernel or filter, and the
# tests of what depends on them must pass, in the debug build. SHORT=1: a fixed list for each row. `kernels.sh NAME..`: these
# rows only. What a failed run said is in target/kernels/. docs/design/kernels.md says what each call is for.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# ROW | RULES, see without.rs | tests of the short form: it: FILTER.., lib: FILTER.., monkey: FILTER.., stuck: SCENARIO..
table='
    guards          | madvise:2:102=EINVAL process_madvise=ENOSYS | lib: stack:: sys::mem it: thread::overflow
    guards denied   | madvise:2:102=EPERM process_madvise=EPERM   | lib: stack:: it: thread::builder::no_memory
    guards feigned  | madvise:2:102=0 process_madvise=0           | lib: stack:: sys::mem
    guards in one   | process_madvise=EBADF                       | lib: stack::tests
    pidfd           | pidfd_open=ENOSYS                           | it: process::wait process::pool::a_worker_that_dies
    pidfd denied    | pidfd_open=EPERM                            | lib: process:: monkey: a_kill_in_a_sleep a_handler_without_sa
    wait by pidfd   | waitid:0:3=EINVAL                           | it: process::wait monkey: child
    nowait of pipes | preadv2:5:8=EOPNOTSUPP pwritev2:5:8=EOPNOTSUPP | monkey: differential fifo vectored large_write splice
    nowait          | preadv2:5:8=EINVAL pwritev2:5:8=EINVAL      | lib: sys::nowait monkey: fifo large_write splice
    preadv2         | preadv2=ENOSYS pwritev2=ENOSYS              | monkey: fifo large_write
    preadv2 denied  | preadv2=EPERM pwritev2=EPERM                | lib: sys::nowait monkey: fifo large_write odd_reads_and_sets
    epoll_pwait2    | epoll_pwait2=ENOSYS                         | it: time::sleep
    epoll denied    | epoll_pwait2=EPERM                          | it: time::sleep
    eventfd         | eventfd2=ENOSYS timerfd_create=ENOSYS       | it: hub::several net::unix
    eventfd denied  | eventfd2=EPERM timerfd_create=EPERM         | it: hub::several
    close_range     | close_range=ENOSYS                          | monkey: close
    close denied    | close_range=EPERM                           | it: process::wait
    clone3          | clone3=ENOSYS                               | it: threadpool::pool thread::local_std
    clone3 denied   | clone3=EPERM                                | stuck: without_os_threads_the_caller_does_it
    membarrier      | membarrier=ENOSYS                           | monkey: locks
    no fast barrier | membarrier:0:16=EINVAL membarrier:0:8=EINVAL | monkey: locks
    rseq            | rseq=ENOSYS get_robust_list=ENOSYS          | lib: isolation it: thread::isolation::each
    rseq denied     | rseq=EPERM get_robust_list=EPERM            | it: thread::isolation::each
    getrandom       | getrandom=ENOSYS memfd_create=ENOSYS        | it: hub::turn
    getrandom denied | getrandom=EPERM memfd_create=EPERM         | it: hub::turn
    files           | statx=ENOSYS copy_file_range=ENOSYS         | it: io::file
    files denied    | statx=EPERM copy_file_range=EPERM           | it: io::file
    io_uring        | io_uring_setup=ENOSYS                       | monkey: accept
    fsgsbase        | fsgsbase                                    | it: thread::isolation::each thread::kill
    Linux 4.12      | {old} preadv2:5:8=EINVAL pwritev2:5:8=EINVAL membarrier=EINVAL statx=ENOSYS fsgsbase | it: hub::several process::wait monkey: fifo
    Linux 5.15      | madvise:2:102=EINVAL process_madvise=EBADF preadv2:5:8=EOPNOTSUPP pwritev2:5:8=EOPNOTSUPP io_uring_setup=EINVAL | it: hub::several monkey: fifo
    a strict filter | {denied} clone3=ENOSYS                      | it: hub::several process::wait monkey: fifo
'
# What Linux 4.12 lacks, and what Docker 20.10 and older filters deny.
old='madvise:2:102=EINVAL process_madvise=ENOSYS pidfd_open=ENOSYS epoll_pwait2=ENOSYS close_range=ENOSYS clone3=ENOSYS
    rseq=ENOSYS io_uring_setup=ENOSYS'
denied='madvise:2:102=EPERM process_madvise=EPERM pidfd_open=EPERM epoll_pwait2=EPERM close_range=EPERM rseq=EPERM
    io_uring_setup=EPERM preadv2=EPERM pwritev2=EPERM membarrier=EPERM'

# What the long form runs of each binary.
declare -A areas=([lib]='stack:: sys:: process:: isolation hub::' [it]='net:: hub:: process:: thread:: time:: io:: threadpool::'
    [monkey]='' [stuck]='')
# Tests that cannot hold without a call. PATTERN of rows & PATTERN.. | BINARY | TEST | why
skips='
    pidfd* & Linux 4* & a strict* | lib | a_forked_child_does_not_close | the test is about a descriptor for the child
    pidfd* & Linux 4* & a strict* | lib | where_the_poller_does_not_take | the test is about a descriptor for the child
    guards & guards denied & guards feigned & Linux* & a strict* | lib    | forty_thousand_guarded_stacks_fit | a guard takes two mappings, so 32,000 stacks fit
    nowait* & preadv2* & Linux* & a strict* | monkey | odd_reads_of_devices | the filter answers before the kernel has refused the file
    close* & Linux 4* & a strict* | monkey | copies_that_fail_wake_nobody | the test calls close_range
    close* & Linux 4* & a strict* | monkey | what_a_killed_accept_takes_goes | the test calls close_range
'

mkdir -p target/kernels || exit 1
logs=target/kernels/logs
rm -rf "$logs" && mkdir "$logs" || exit 1
rustc --edition 2024 -O -o target/kernels/without tests/long/without.rs || exit 1
without=$PWD/target/kernels/without
# The build of tests/run.sh.
export RUST_BACKTRACE=0 CARGO_TERM_COLOR=never CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-line-tables-only}
features=$(awk -F '[ =]' '/^\[/ { on = $0 == "[features]"; next }
    on && /^[a-z]/ && $1 != "default" && $1 != "sanitizer" { print $1 }' Cargo.toml | paste -sd,)
built=$(cargo test --features "$features" --lib --test it --test monkey --test stuck --no-run 2>&1) || { echo "$built"; exit 1; }
declare -A binaries
while read -r source binary; do
    case $source in
    src/lib.rs) binaries[lib]=$binary ;;
    tests/it/*) binaries[it]=$binary ;;
    tests/monkey/*) binaries[monkey]=$binary ;;
    tests/stuck/*) binaries[stuck]=$binary ;;
    esac
done < <(sed -n 's/.*Executable \(unittests \)\?\([^ ]*\) (\(.*\))$/\2 \3/p' <<<"$built")
((${#binaries[@]} == 4)) || { echo "not all binaries were found: $built"; exit 1; }

trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

# The arguments `--skip TEST..` for a row and a binary; with a line for each.
skip=()
skips_of() {
    local rows binary test why pattern
    skip=()
    while IFS='|' read -r rows binary test why; do
        [[ $(trim "$binary") == "$2" ]] || continue
        while read -r pattern; do
            # A pattern, so without quotes.
            [[ -n $pattern && $1 == $pattern ]] || continue
            skip+=(--skip "$(trim "$test")")
            echo "skipped: $(trim "$test"): $(trim "$why"): in the row|$1" >>"$logs/skipped"
        done < <(tr '&' '\n' <<<"$rows")
    done <<<"$skips"
}

failed=0 ran=0 tests=0
# run ROW BINARY RULE.. -- FILTER..
run() {
    local row=$1 binary=$2 log rules=() start=$SECONDS code count
    shift 2
    while [[ $1 != -- ]]; do
        rules+=("$1")
        shift
    done
    shift
    log=$logs/${row// /_}.$binary.log
    if [[ $binary == stuck && $# == 1 ]]; then
        # The scenario itself: under some filters its parent could not start it.
        GREENTHREAD_STUCK=$1 timeout 60 "$without" "${rules[@]}" -- "${binaries[stuck]}" >"$log" 2>&1
        code=$? count=1
    else
        skips_of "$row" "$binary"
        timeout 600 "$without" "${rules[@]}" -- "${binaries[$binary]}" "$@" "${skip[@]}" >"$log" 2>&1
        code=$?
        count=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p; s/^\([0-9]*\) passed, .*/\1/p' "$log" | tail -n 1)
    fi
    ran=$((ran + 1)) tests=$((tests + ${count:-0}))
    if ((code != 0 || ${count:-0} == 0)); then
        failed=$((failed + 1))
        echo "$row: $binary $*: failed with $code; see $log"
        grep -aE '^test .*FAILED|^FAILED|panicked at' "$log" | sort | uniq -c | head -n 10
    fi
    printf '%-16s %-7s %5s tests %4s s\n' "$row" "$binary" "${count:-0}" $((SECONDS - start))
}

while IFS='|' read -r row rules short; do
    row=$(trim "$row")
    [[ -n $row ]] || continue
    (($# == 0)) || printf '%s\n' "$@" | grep -qxF "$row" || continue
    if [[ $rules == *fsgsbase* && $(uname -m) != x86_64 ]]; then
        echo "skipped: $row: only x86-64 has the instruction wrfsbase"
        continue
    fi
    rules=${rules//\{old\}/$old}
    read -ra rules < <(tr '\n' ' ' <<<"${rules//\{denied\}/$denied}")
    short=$(trim "$short")
    if [[ -z ${SHORT:-} && $short != stuck:* ]]; then
        for binary in lib it monkey; do
            read -ra filters <<<"${areas[$binary]}"
            run "$row" "$binary" "${rules[@]}" -- "${filters[@]}"
        done
        continue
    fi
    binary='' filters=()
    for word in $short end:; do
        if [[ $word == *: && $word != *::* ]]; then
            [[ -z $binary ]] || run "$row" "$binary" "${rules[@]}" -- "${filters[@]}"
            binary=${word%:} filters=()
        else
            filters+=("$word")
        fi
    done
done <<<"$table"

# A line for each test, with its rows.
[[ ! -s $logs/skipped ]] || sort -u "$logs/skipped" | awk -F '|' '{ rows[$1] = rows[$1] " \"" $2 "\"" } END { for (test in rows) print test rows[test] }'
echo "ran: $tests tests in $ran runs on kernels that lack something, $failed failed"
((failed == 0 && ran > 0))

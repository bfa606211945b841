#!/usr/bin/env bash
# The debug build's tests with other versions of glibc, on x86-64: those that Debian's suites have, and those in folders:
#
#     tests/long/glibc.sh [FOLDER...]
#
# A folder has the libraries of one glibc: `libc.so.6`, `ld-linux-x86-64.so.2` and the others, also `libgcc_s.so.1`. Without
# a folder for it, a version that no suite has is skipped. ALL=1: all of tests/it, not only where libc matters most.
#
# The packages come from the mirror of Debian that apt knows here, by a configuration of its own: nothing is installed. The
# tests are linked once, tests/it against the oldest glibc, with a loader and a search path below target/glibc/now: that is a
# link to the libraries of the version which is tried. So programs that the tests start use the machine's own glibc.
#
# tests/long/glibc.skip has the tests that are left out, with reasons. A test that fails is run once more, alone.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
shopt -s nullglob

work=$PWD/target/glibc
# What users have: Debian 11 to 13, Ubuntu 20.04 to 24.04, and the newest.
wanted=(2.31 2.35 2.36 2.39 2.41)
suites=(bullseye bookworm trixie sid experimental)
parts=(thread:: tls:: hub:: sync:: net:: process:: threadpool::)
features=${F:-monkey,tls,process-pool,tokio-io,hyper}
failed=0 passed=0 versions=0

[[ $(uname -m) == x86_64 ]] || { echo "skipped: glibc: not on x86-64"; exit 0; }
mkdir -p "$work/lib" || exit 1

# version FOLDER: prints which glibc is in a folder.
version() {
    "$1/ld-linux-x86-64.so.2" --library-path "$1" "$1/libc.so.6" 2>/dev/null |
        sed -n '1s/.*release version \([0-9]*\.[0-9]*\).*/\1/p'
}

# apt_own COMMAND...: apt with sources, lists and a cache of its own.
apt_own() {
    local command=$1
    shift
    APT_CONFIG=$work/apt/apt.conf "$command" "$@" 2>>"$work/apt.log"
}

# suite NAME: downloads the packages of a suite, and sets `found` to the version that it has, if any.
suite() {
    local packages=$work/packages/$1 root=$work/root/$1 folder
    found=
    mkdir -p "$packages" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    : >"$work/apt/status"
    cat >"$work/apt/apt.conf" <<END
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
END
    {
        echo "deb [signed-by=$keys] $mirror $1 main"
        # This suite is an addition to unstable, with few packages of its own.
        [[ $1 != experimental ]] || echo "deb [signed-by=$keys] $mirror sid main"
    } >"$work/apt/sources.list"
    apt_own apt-get -q update >>"$work/apt.log" || return
    (cd "$packages" && rm -f ./*.deb &&
        apt_own apt-get -q -t "$1" download libc6:amd64 libc6-dev:amd64 libgcc-s1:amd64 >>"$work/apt.log") || return
    rm -rf "$root"
    for folder in "$packages"/*.deb; do
        dpkg-deb -x "$folder" "$root" || return
    done
    rm -rf "$work/lib/new" && mkdir "$work/lib/new"
    for folder in "$root/lib/x86_64-linux-gnu" "$root/usr/lib/x86_64-linux-gnu"; do
        if [[ -d $folder ]]; then
            find "$folder" -maxdepth 1 -name '*.so.[0-9]*' -exec cp -L {} "$work/lib/new/" \;
        fi
    done
    found=$(version "$work/lib/new")
    [[ -n $found ]] || return
    rm -rf "${work:?}/lib/$found" && mv "$work/lib/new" "$work/lib/$found"
}

# sysroot ROOT: has a linker find the libraries of an unpacked suite, whose links name places of a whole system.
sysroot() {
    local link target
    while read -r link; do
        target=$(readlink "$link")
        [[ $target != /* ]] || ln -sfn "$1$target" "$link"
    done < <(find "$1" -type l)
    sed -i "s| /| $1/|g" "$1"/usr/lib/x86_64-linux-gnu/lib{c,m}.so
    printf '%s\n' -C "link-arg=-B$1/usr/lib/x86_64-linux-gnu/" -L "native=$1/usr/lib/x86_64-linux-gnu" \
        -L "native=$1/lib/x86_64-linux-gnu"
}

# link TEST ARGUMENTS...: builds a test binary, and prints where it is.
link() {
    local test=$1
    shift
    cargo rustc -q --features "$features" --test "$test" --message-format json -- "$@" \
        -C link-arg=-Wl,--disable-new-dtags -C "link-arg=-Wl,-rpath,$work/now" \
        -C "link-arg=-Wl,--dynamic-linker=$work/now/ld-linux-x86-64.so.2" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# run VERSION BINARY FILE SECONDS FILTERS...: runs the tests whose names contain one of the filters (all, if there is none),
# but not those that are left out.
run() {
    local version=$1 binary=$2 file=$3 seconds=$4 names name rc ok=0 again=() output=$work/$1-$2.log
    shift 4
    mapfile -t names < <("$file" --list "$@" 2>/dev/null | sed -n 's/: test$//p' |
        awk -v version="$version" -v binary="$binary" '
            FNR == NR { if ($1 == version && $2 == binary) out[$3]; next }
            { for (name in out) if ($1 == name || (name ~ /::$/ && index($1, name) == 1)) next; print $1 }
        ' tests/long/glibc.skip -)
    if ((${#names[@]} == 0)); then
        echo "$version: $binary: no tests"
        failed=$((failed + 1))
        return
    fi
    timeout "$seconds" "$file" --test-threads 2 --exact "${names[@]}" >"$output" 2>&1
    rc=$?
    # The last one: children have such lines too.
    ok=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$output" | tail -n 1)
    ok=${ok:-0}
    mapfile -t again < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
    if ((rc == 124 || (rc != 0 && ${#again[@]} == 0))); then
        echo "$version: $binary: ended with $rc: $(grep -v '^test ' "$output" | tail -n 1)"
        failed=$((failed + 1))
    fi
    for name in "${again[@]}"; do
        if timeout 120 "$file" --exact "$name" >>"$output" 2>&1; then
            ok=$((ok + 1))
        else
            echo "$version: $binary: failed: $name"
            failed=$((failed + 1))
        fi
    done
    echo "$version: $binary: $ok passed, after ${#again[@]} were run again"
    passed=$((passed + ok))
}

: >"$work/apt.log"
oldest=
mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's/ Debian$//p' | sort -u | head -n 1)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
declare -A had=()
for folder in "$@"; do
    found=$(version "$folder")
    if [[ -z $found ]]; then
        echo "$folder: no glibc that starts"
        failed=$((failed + 1))
        continue
    fi
    rm -rf "${work:?}/lib/$found" && cp -rL "$folder" "$work/lib/$found" && had[$found]=folder
done
for name in "${suites[@]}"; do
    [[ -n $mirror ]] || break
    suite "$name"
    if [[ -n $found ]]; then
        had[$found]=$name
        [[ -n $oldest ]] || oldest=$name
    else
        echo "skipped: the glibc of Debian's $name: $(tail -n 1 "$work/apt.log")"
    fi
done
for found in "${wanted[@]}"; do
    [[ -n ${had[$found]:-} ]] || echo "skipped: glibc $found: no suite of Debian's mirror has it, and no folder was given"
done
((${#had[@]} > 0)) || { echo "skipped: glibc: none can be had"; exit $((failed > 0)); }

arguments=()
[[ -z $oldest ]] || mapfile -t arguments < <(sysroot "$work/root/$oldest")
# A program exports a symbol in libc's place only if the libc that it was linked against has it, and tests/monkey looks
# whether it exports all. So that is linked against this machine's.
it=$(link it "${arguments[@]}") && monkey=$(link monkey) && [[ -x $it && -x $monkey ]] ||
    { echo "does not build"; exit 1; }
[[ -z ${ALL:-} ]] || parts=()
mapfile -t sorted < <(printf '%s\n' "${!had[@]}" | sort -V)
for found in "${sorted[@]}"; do
    ln -sfn "lib/$found" "$work/now"
    versions=$((versions + 1))
    run "$found" it "$it" 900 "${parts[@]}"
    if [[ $(printf '%s\n' 2.34 "$found" | sort -V | head -n 1) == 2.34 ]]; then
        run "$found" monkey "$monkey" 600
    else
        echo "skipped: $found: monkey: there is no isolation before glibc 2.34, so nothing can be patched"
    fi
done
echo "ran: $versions versions of glibc (${sorted[*]}), $passed passed, $failed failed"
((failed == 0 && passed > 0))

#!/usr/bin/env bash
# A function that changes the base uses no thread-local (BASE-2 in src/sys/platform/linux_gnu/base.rs): the compiler may read
# the thread pointer early, and use that value after the change. This looks at the machine code, where that would show:
# of a program and of a shared library, in release with LTO, for x86-64 and aarch64. Only the changes' own instructions may
# read the thread pointer, and only the functions listed here may change it.
#
# Then the same is done with a copy of the source in which a function that changes the base uses a thread-local: that must
# be found.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

failed=0 ran=0 skipped=0
work=target/base
mkdir -p "$work" || exit 1

# package NAME SOURCE: a package that uses the library SOURCE: its own context switches, forks, and calls on the native base.
package() {
    mkdir -p "$work/$1/src" && cp Cargo.lock "$work/$1/" && cat >"$work/$1/Cargo.toml" <<END
[workspace]

[package]
name = "probe"
version = "0.0.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]
path = "src/main.rs"

[[bin]]
name = "probe"
path = "src/main.rs"

[dependencies]
greenthread = { path = "$2", features = ["monkey"] }

[profile.release]
lto = "fat"
codegen-units = 1
END
    cat >"$work/$1/src/main.rs" <<'END'
#[unsafe(no_mangle)]
pub extern "C" fn probe() {
    greenthread::monkey::patch_all().expect("patched");
    let two = [1, 2].map(|ms| {
        greenthread::thread::spawn(move || {
            let status = std::process::Command::new("true").status();
            greenthread::thread::sleep(std::time::Duration::from_millis(ms));
            status.is_ok()
        })
    });
    assert!(two.into_iter().all(|one| one.join().unwrap()));
    greenthread::thread::spawn_local(|| println!("done")).join().unwrap();
}

#[allow(dead_code)]
fn main() {
    probe();
}
END
}

# look FILE OBJDUMP: prints what is wrong, and then how many functions it looked at.
look() {
    "$2" -d --no-show-raw-insn "$1" | c++filt | awk '
        # How often the instructions of base.rs themselves read the thread pointer; -1: a function that is not listed.
        function allowed(name) {
            if (name ~ /base::before_fork(::h[0-9a-f]+)?$/) return 2
            if (name ~ /base::after_fork(::h[0-9a-f]+)?$/) return 1
            if (name ~ /base::call(::h[0-9a-f]+)?$/) return 0
            if (name ~ /::run_in_contexts(::h[0-9a-f]+)?$/) return 0
            # The end of a run_in_contexts that unwinds; the compiler may make a function of it.
            if (name ~ /drop_in_place<greenthread::hub::turn::Base>(::h[0-9a-f]+)?$/) return 0
            # These call the first two, so the base is another one after the call.
            if (name ~ /hooks::handle_forks::(before|after_in_parent|after_in_child)(::h[0-9a-f]+)?$/) return 0
            return -1
        }
        function finish() {
            if (name == "") return
            most = allowed(name)
            if (most < 0 && changes > 0) print name ": changes the base, and is not known to"
            if (most >= 0) {
                seen++
                if (changes > 0) changing++
                if (reads > most) print name ": reads the thread pointer " reads " times, not " most
            }
        }
        /^[0-9a-f]+ <.*>:$/ {
            finish()
            name = $0; sub(/^[0-9a-f]+ </, "", name); sub(/>:$/, "", name)
            reads = changes = 0
            next
        }
        /\tmsr\ttpidr_el0|\twrfsbase/ { changes++; next }
        /tpidr_el0|%fs:|tls_get_addr|tlsdesc/ { reads++ }
        END {
            finish()
            # run_in_contexts, call, and the two for forks; and the three that call these.
            if (changing < 4) print "only " changing + 0 " of 4 functions that change the base were found"
            print "functions: " seen + 0
        }'
}

# check NAME TARGET OBJDUMP: builds and looks; sets `wrong` to what is wrong.
check() {
    local file found
    wrong=""
    if ! cargo build -q --release --manifest-path "$work/$1/Cargo.toml" --target-dir "$work/target" --target "$2"; then
        wrong="does not build"
        return
    fi
    for file in "$work/target/$2/release/"{probe,libprobe.so}; do
        found=$(look "$file" "$3")
        wrong+=$(grep -v '^functions: ' <<<"$found" | sed "s|^|${file##*/}: |")
        found=${found##*functions: }
        ((found >= 7)) || wrong+="${file##*/}: only $found functions were found"
        ran=$((ran + 1))
    done
}

package real "$PWD"
rm -rf "$work/source" && mkdir -p "$work/source" && cp -r Cargo.toml src README.md docs "$work/source/" || exit 1
# The fault: `call` uses a thread-local on both sides of the change.
sed -i 's|^        f(argument);$|        FORKING.set(back); f(argument); FORKING.set(0);|' \
    "$work/source/src/sys/platform/linux_gnu/base.rs"
# Cargo wants the files of all targets that the manifest names.
awk '/^\[\[/ { on = 0; off = 1 } /^\[[^[]/ { off = 0 } !off' Cargo.toml >"$work/source/Cargo.toml"
package planted "$PWD/$work/source"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for target in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do
    processor=${target%%-*}
    objdump=$processor-linux-gnu-objdump
    if ! command -v "$objdump" >/dev/null || ! command -v "$processor-linux-gnu-gcc" >/dev/null ||
        [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target ]]; then
        echo "skipped: $processor: no $objdump, compiler or standard library for it"
        skipped=$((skipped + 1))
        continue
    fi
    check real "$target" "$objdump"
    if [[ -n $wrong ]]; then
        printf '%s: %s\n' "$processor" "$wrong"
        failed=$((failed + 1))
    fi
    check planted "$target" "$objdump"
    if ! grep -q 'base::call.*reads the thread pointer' <<<"$wrong"; then
        printf '%s: the planted fault was not found: %s\n' "$processor" "$wrong"
        failed=$((failed + 1))
    fi
done
echo "ran: $ran files looked at, $failed failed, $skipped skipped"
((failed == 0 && ran > 0))

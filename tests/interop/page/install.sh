#!/usr/bin/env bash
# Installs playwright-core and axe-core. No script of a package runs: playwright-core needs none, and downloads no browser.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
begin_install package-lock.json
install_node --ignore-scripts
end_install

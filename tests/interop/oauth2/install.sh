#!/usr/bin/env bash
# Installs the OAuth clients.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
needs_python
begin_install package-lock.json requirements.txt
install_node
install_python "$cache/python"
end_install

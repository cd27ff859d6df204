#!/usr/bin/env bash
# Installs the MCP SDKs for TypeScript and Python, and the provider.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
needs_python
begin_install package-lock.json requirements.txt
install_node
install_python "$cache/python"
end_install

#!/usr/bin/env bash
# Installs the MCP SDKs for TypeScript and Python, and the provider.
set -euo pipefail
source "$(dirname "$0")/../../installed.sh"
needs_node
needs_python
begin_install package-lock.json requirements.txt requirements-v1.txt
install_node
install_python "$cache/python"
install_python "$cache/python-v1" requirements-v1.txt
end_install

#!/bin/sh
# New locks, by uv: `sh tools/lock.sh`. Each holds for Python 3.11 and 3.12; the server's for Linux on x86-64 alone, the only place where its wheel
# runs. The CUDA bindings and the placeholder of perf_analyzer have no wheels outside Linux. Versions stay as they are where they can;
# `tools/lock.sh new` takes the newest of all. PYTHON names the interpreter to use.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"${PYTHON:-python3}" -m venv "$made/env"
"$made/env/bin/pip" install -q "uv>=0.13,<0.14" 2>/dev/null
lock() { "$made/env/bin/uv" pip compile --quiet --python-version 3.11 --fork-strategy fewest --no-header --no-annotate --no-emit-index-url "$@"; }
if [ "${1:-}" != new ]; then
  sed -E "/^(cuda-|perf-analyzer)/s/ ; .*//" requirements.lock > "$made/client"
  cp containers/server-requirements.lock "$made/server"
fi
lock --universal pyproject.toml --extra dev -o "$made/client"
lock --python-platform x86_64-manylinux_2_35 containers/server-requirements.txt -o "$made/server"
{
  echo "# Made by tools/lock.sh from pyproject.toml (with its dev extra), for Python 3.11 and 3.12."
  sed -E "/^(cuda-|perf-analyzer)/s/( ; .*)?$/ ; sys_platform == 'linux'/" "$made/client"
} > requirements.lock
{
  echo "# Made by tools/lock.sh from containers/server-requirements.txt, for Python 3.11 and 3.12 on Linux."
  cat "$made/server"
} > containers/server-requirements.lock
wc -l requirements.lock containers/server-requirements.lock

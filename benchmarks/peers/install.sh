#!/usr/bin/env bash
# Makes an environment of their own for the peers, in the folder given; nothing of theirs enters the package.
#     bash benchmarks/peers/install.sh peers-env && peers-env/bin/python benchmarks/peers/compare.py --data DIR
set -euo pipefail
[ "$#" -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
python3 -m venv "$1"
"$1/bin/pip" install -e "$root[vision]" "spikingjelly==2.0.0"

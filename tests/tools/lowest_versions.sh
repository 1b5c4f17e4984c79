#!/usr/bin/env bash
# The tests with the lowest versions that pyproject.toml allows, in an environment of their own:
#
#   tests/tools/lowest_versions.sh [TESTS...]
#
# TESTS are words of pytest; without them, all tests but those of what newer releases alone have (see below).
# PYTHON is the interpreter (python3.10), FOLDER where the environment is made and kept (/tmp/vitlocal-lowest).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3.10}
folder=${FOLDER:-/tmp/vitlocal-lowest}

"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet uv
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --resolution lowest-direct \
    --editable '.[timm,transformers]' 'pytest>=8' 'pytest-xdist>=3.6' 'hypothesis>=6.100' 'scikit-learn>=1.4' 'networkx>=3.4'
"$folder/bin/python" -c 'import sys; print("Python", sys.version.split()[0])'
"$folder/bin/uv" pip list --quiet --python "$folder/bin/python" |
    grep -E '^(torch|torchvision|lightning|torchmetrics|jsonargparse|numpy|pandas|pillow|scipy|matplotlib) '

# Not here: export and int8 (ONNX), Ray, the site and pages in a browser are extras of their own.
[ $# -gt 0 ] || set -- tests vitlocal --ignore=tests/compress --ignore=tests/docs --ignore=tests/study/test_ray_cluster.py \
    --ignore=tests/study/test_page.py --ignore=tests/inspection
exec "$folder/bin/python" -m pytest -q -n auto "$@"

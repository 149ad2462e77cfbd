#!/usr/bin/env bash
# Makes the benchmarks' own environment, .venv-bench: this project beside its peers, at the versions of requirements.lock.
# The peers' needs (wandb, gdown, ...) never reach the project's own environment.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
lock=benchmarks/requirements.lock
made=.venv-bench/made

[ -x .venv-bench/bin/python ] || "$PYTHON" -m venv .venv-bench
if [ ! -e "$made" ] || [ "$lock" -nt "$made" ] || [ pyproject.toml -nt "$made" ]; then
    .venv-bench/bin/pip install --quiet --disable-pip-version-check --constraint "$lock" torch
    .venv-bench/bin/pip install --quiet --disable-pip-version-check --requirement "$lock"
    .venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
    .venv-bench/bin/pip check
    touch "$made"
fi
PYTHONPATH=benchmarks .venv-bench/bin/python -W ignore -c \
    'import torchvision_shim, avalanche, continuum, river, everlearn; print(f"avalanche {avalanche.__version__}, river {river.__version__}: ready")'

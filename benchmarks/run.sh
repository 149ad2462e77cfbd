#!/usr/bin/env bash
# Runs every benchmark in .venv-bench (made by setup.sh), one after the other, one thread each; or those named:
#   bash benchmarks/run.sh continual import_time
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
shared=../shared/data
if [ -z "${EVERLEARN_DATA:-}" ] && [ -d "$shared" ]; then
    EVERLEARN_DATA="$(cd "$shared" && pwd)"
    export EVERLEARN_DATA
fi
for name in "${@:-import_time continual methods throughput pretraining precision online contrast liquid query bandits recurring forgetting river_wrapper tabular memory_curve serving}"; do
    for script in $name; do
        .venv-bench/bin/python "benchmarks/$script.py"
    done
done
.venv-bench/bin/python benchmarks/readme.py

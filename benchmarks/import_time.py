"""What `import everlearn` costs beside `import torch`, and what the first use of a learner adds.

    python benchmarks/import_time.py

Each import is a new process, started in turns; the time is that of the import statement alone.
Writes results/import_time.json and results/import_time.md.
"""

import argparse
import subprocess
import sys
from typing import Any

import timing

STATEMENTS = {
    "torch": "import torch",
    "everlearn": "import everlearn",
    "torch, then everlearn": "import torch; import everlearn",
    "everlearn and its run, compare and learners": "from everlearn import run, compare, Replay, FineTune, load",
    "everlearn.cli": "import everlearn.cli",
}
BESIDE = "torch"
TARGET = 0.15  # seconds over torch
CLOCK = "from time import perf_counter; began = perf_counter()\n{}\nprint(perf_counter() - began)"


def measured(statement: str) -> float:
    """Seconds of one import in a new process."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def text(record: dict[str, Any]) -> str:
    """The table for people."""
    rows = [
        [
            f"`{STATEMENTS[name]}`",
            f"{found['median']:.3f} ({found['low']:.3f}-{found['high']:.3f})",
            f"{found['over_torch']:+.3f}",
        ]
        for name, found in record["imports"].items()
    ]
    verdict = f"`import everlearn` over `import torch`: target <= {TARGET} s, {'met' if record['met'] else 'missed'}."
    return f"{timing.table(['', 'seconds (quartiles)', 'over torch, seconds'], rows)}\n\n{verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    contenders = {name: (lambda _, statement=statement: measured(statement)) for name, statement in STATEMENTS.items()}
    found = timing.interleave(contenders, options.rounds)
    imports = {name: timing.summary(seconds) for name, seconds in found.items()}
    for figures in imports.values():
        figures["over_torch"] = figures["median"] - imports[BESIDE]["median"]
    record = {
        "settings": {"rounds": options.rounds},
        "imports": imports,
        "target": TARGET,
        "met": imports["everlearn"]["over_torch"] <= TARGET,
    }
    timing.publish("import_time", record, text(record))


if __name__ == "__main__":
    main()

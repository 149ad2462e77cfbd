"""What `import everlearn` costs beside `import torch`, and what the first use of a learner adds.

    python benchmarks/import_time.py

Each import is a new process, started in turns; the times are those of the import statement alone, on the clock and of the processor.
Public names are loaded when they are first used, so `import everlearn` by itself says little; the target is held against all that a
run needs, in processor time, which other work on the machine hardly touches.
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
    "run": "from everlearn import FineTune, Replay, compare, load, run",
    "cli": "import everlearn.cli",
}
BESIDE, JUDGED = "torch", "run"
TARGET = 0.15  # seconds over torch
CLOCK = """from time import perf_counter, process_time
began, used = perf_counter(), process_time()
{}
print(perf_counter() - began, process_time() - used)"""


def measured(statement: str) -> tuple[float, float]:
    """Seconds and processor seconds of one import in a new process."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    seconds, processor = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(seconds), float(processor)


def text(record: dict[str, Any]) -> str:
    """The table for people."""
    rows = []
    for name, found in record["imports"].items():
        cells = [
            f"{found[key]['median']:.3f} ({found[key]['low']:.3f}-{found[key]['high']:.3f})"
            for key in ("seconds", "processor")
        ]
        rows.append([f"`{STATEMENTS[name]}`", *cells, f"{found['over_torch']:+.3f}"])
    head = ["", "seconds (quartiles)", "processor seconds (quartiles)", "processor seconds over torch"]
    verdict = f"All that a run needs, over torch: target <= {TARGET} s, {'met' if record['met'] else 'missed'}."
    return f"{timing.table(head, rows)}\n\n{verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    contenders = {name: (lambda _, statement=statement: measured(statement)) for name, statement in STATEMENTS.items()}
    found = timing.interleave(contenders, options.rounds)
    imports: dict[str, Any] = {
        name: {
            "seconds": timing.summary([pair[0] for pair in pairs]),
            "processor": timing.summary([pair[1] for pair in pairs]),
        }
        for name, pairs in found.items()
    }
    for figures in imports.values():
        figures["over_torch"] = figures["processor"]["median"] - imports[BESIDE]["processor"]["median"]
    record = {
        "settings": {"rounds": options.rounds},
        "imports": imports,
        "target": TARGET,
        "met": imports[JUDGED]["over_torch"] <= TARGET,
    }
    timing.publish("import_time", record, text(record))


if __name__ == "__main__":
    main()

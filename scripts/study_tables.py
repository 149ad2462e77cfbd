"""Print the tables of a study's page from its record: python scripts/study_tables.py docs/studies/hpcr.json"""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Arms with every measure, then claims with their verdicts, as Markdown."""
    record = json.loads(Path(path).read_text())
    measures = list(record["measures"])
    print("| arm | " + " | ".join(measures) + " | tuned to |")
    print("|---|" + "---:|" * len(measures) + "---|")
    for arm in record["arms"]:
        cells = [_cell(arm["measures"].get(measure)) for measure in measures]
        setting = ", ".join(f"{key} {value}" for key, value in arm["setting"].items())
        print(f"| {arm['label']} | " + " | ".join(cells) + f" | {setting} |")
    print("\n| inequality | measure | difference | 95 % interval | asked | verdict |\n|---|---|---:|---:|---:|---|")
    for claim in record["claims"]:
        text = claim["text"] + (" (control)" if claim["control"] else "")
        verdict = claim["verdict"]
        if claim["control"]:
            verdict += ", as it must" if verdict == "DOES NOT HOLD" else ": the control does not clearly fail"
        elif verdict == "TOO SMALL TO TELL":
            verdict += f" ({'met' if claim['met'] else 'not met'} by the means)"
        measure = claim["measure"] or measures[0]
        span = f"{claim['low']:.3f} to {claim['high']:.3f}"
        print(f"| {text} | {measure} | {claim['difference']:+.3f} | {span} | {claim['margin']:+.2f} | {verdict} |")


def _cell(found: dict | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.3f}" if found["low"] is None else f"{found['mean']:.3f} ± {found['high'] - found['mean']:.3f}"


if __name__ == "__main__":
    main(*sys.argv[1:])

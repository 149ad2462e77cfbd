"""Comparison records as `compare` writes them, made from simple laws of learning and forgetting, for the tests of the report.

    accuracy on set j after checkpoint i >= j:  peak * keep^(i - j) + chance * (1 - keep^(i - j)),   before j: chance (or zero)

The tests below hold the generator itself to docs/architecture.md.
"""

import json

import numpy as np
from scipy import stats

LEARNERS = {
    # label: (name, reference, peak, keep, update_ms, replay rows)
    "frozen": ("frozen", False, 0.97, None, 0.0, 0),
    "fine_tune": ("fine_tune", False, 0.97, 0.12, 0.38, 0),
    "retrain": ("retrain", True, 0.955, 0.995, 182.0, 0),
    "replay(capacity=500)": ("replay", False, 0.955, 0.955, 0.74, 500),
    "derpp(capacity=500, alpha=0.5)": ("derpp", False, 0.95, 0.975, 1.31, 500),
    "online_ewc(strength=10.0)": ("online_ewc", False, 0.93, 0.35, 0.92, 0),
    "nearest_mean": ("nearest_mean", False, 0.86, 0.985, 0.11, 0),
    "streaming_lda(shrinkage=0.0001)": ("streaming_lda", False, 0.92, 0.985, 0.21, 0),
}


def interval(values):
    values = [float(value) for value in values]
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None, "values": values}
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": values}


def paired(first, second):
    found = interval(np.subtract(first, second))
    clear = found["low"] is not None and (found["low"] > 0 or found["high"] < 0)
    p = None if found["low"] is None else float(stats.ttest_rel(first, second).pvalue)
    return {"difference": found["mean"], "low": found["low"], "high": found["high"], "p": p, "clear": bool(clear)}


def matrix_of(random, peak, keep, sets, noise=0.012):
    matrix = np.zeros((sets, sets))
    peaks = np.clip(peak + random.normal(0, noise * 1.5, sets), 0, 1)
    for after in range(sets):
        for held in range(sets):
            if keep is None:
                matrix[after, held] = peaks[0] if held == 0 else 0.0
            elif held <= after:
                kept = keep ** (after - held) if held or keep > 0.5 else (0.6 * keep) ** (after - held)
                matrix[after, held] = np.clip(peaks[held] * kept + random.normal(0, noise), 0, 1)
    return matrix


def finish(learners, stream, config, seconds=71.3):
    """Summaries, pairs and the rest of a record around learners whose runs are there."""
    from everlearn.measure.report import decide

    able = [entry for entry in learners if "score" in entry["summary"]]
    able.sort(key=lambda entry: -entry["summary"]["score"]["mean"])
    pairs = [
        {
            "first": a["label"],
            "second": b["label"],
            **paired(a["summary"]["score"]["values"], b["summary"]["score"]["values"]),
        }
        for index, a in enumerate(able)
        for b in able[index + 1 :]
    ]
    record = {
        "kind": "comparison",
        "format": 1,
        "config": config,
        "stream": stream,
        "learners": learners,
        "pairs": pairs,
        "verdict": decide(learners, pairs, stream["headline"]),
        "environment": {
            "everlearn": "0.1.0", "torch": "2.13.0+cpu", "python": "3.12.4", "commit": "1f0c9a7e55d2", "device": "cpu",
            "threads": 1, "processors": 2,
        },
        "seconds": seconds,
    }  # fmt: skip
    return json.loads(json.dumps(record))


def summary_of(runs, score):
    figures = {
        "accuracy": ("figures", "matrix", "average_accuracy"),
        "prequential_accuracy": ("figures", "prequential", "accuracy"),
        "anytime_accuracy": ("figures", "matrix", "anytime_accuracy"),
        "forgetting": ("figures", "matrix", "forgetting"),
        "backward_transfer": ("figures", "matrix", "backward_transfer"),
        "active_units": ("figures", "plasticity", "active_units"),
        "effective_rank": ("figures", "plasticity", "effective_rank"),
        "replay_bytes": ("figures", "memory", "bytes"),
        "update_ms": ("figures", "cost", "update_ms"),
        "update_ms_p99": ("figures", "cost", "update_ms_p99"),
        "predict_ms_p99": ("figures", "cost", "predict_ms_p99"),
        "seconds": ("figures", "cost", "seconds"),
        "peak_memory_bytes": ("figures", "cost", "peak_memory_bytes"),
        "labels": ("used", "labels"),
        "updates": ("used", "updates"),
    }
    summary = {}
    for measure, path in figures.items():
        values = []
        for run in runs:
            found = run
            for key in path:
                found = found.get(key) if isinstance(found, dict) else None
            values.append(found)
        if values and all(value is not None for value in values):
            summary[measure] = interval(values)
    if score in summary:
        summary["score"] = summary[score]
    return summary


def costs(random, update_ms, rows, events):
    noisy = float(update_ms * random.uniform(0.95, 1.08))
    return {
        "update_ms": noisy,
        "update_ms_p99": noisy * 2.4,
        "predict_ms_p50": float(random.uniform(0.05, 0.06)),
        "predict_ms_p99": float(random.uniform(0.11, 0.19)),
        "seconds": float((noisy + 0.06) * events / 1000),
        "peak_memory_bytes": float(231e6 + rows * 800 + random.uniform(0, 2e6)),
        "model_bytes": 37_000,
    }


def plasticity_at(random, name, share):
    fall = {"fine_tune": 0.17, "online_ewc": 0.1, "frozen": 0.0}.get(name, 0.03)
    return {
        "active_units": float(np.clip(0.93 - fall * share + random.normal(0, 0.005), 0, 1)),
        "effective_rank": float(27.0 * (1 - 1.6 * fall * share) + random.normal(0, 0.3)),
        "weight_norm": float(8.1 + (0 if name == "frozen" else 3.2 * share)),
    }


def class_incremental(seeds=(0, 1, 2), learners=None, classes=10, experiences=5, steps=32, points=200, labels=None):
    """Classes arrive in groups; judged on held-out sets at the end of each."""
    learners = LEARNERS if learners is None else learners
    labels = [str(number) for number in range(classes)] if labels is None else labels
    groups = np.array_split(np.arange(classes), experiences)
    names = [", ".join(labels[index] for index in group) for group in groups]
    events = experiences * (steps + 1)
    checkpoints = [(steps + 1) * (number + 1) for number in range(experiences)]
    entries = []
    for place, (label, (name, reference, peak, keep, update_ms, rows)) in enumerate(learners.items()):
        runs = []
        for seed in seeds:
            random = np.random.default_rng([seed, place])
            matrix = matrix_of(random, peak, keep, experiences)
            average = matrix.mean(axis=1)
            best = matrix[:-1].max(axis=0)[:-1] if experiences > 1 else np.zeros(0)
            curve = []
            for event in sorted({*np.linspace(1, events, points).astype(int).tolist(), *checkpoints}):
                done = sum(event >= checkpoint for checkpoint in checkpoints)
                share = event / events
                point = {"event": int(event), "plasticity": plasticity_at(random, name, share)}
                if done:
                    point["matrix"] = {"average_accuracy": float(average[done - 1])}
                stored = int(min(rows, event * 16))
                point["memory"] = {"stored": stored, "bytes": stored * 784}
                curve.append(point)
            per_class = [
                {
                    labels[index]: float(
                        np.clip(matrix[after, group] + random.normal(0, 0.03) * (matrix[after, group] > 0), 0, 1)
                    )
                    for group, members in enumerate(groups)
                    for index in members
                }
                for after in range(experiences)
            ]
            figures = {
                "matrix": {
                    "matrix": matrix.tolist(),
                    "names": names,
                    "average_accuracy": float(average[-1]),
                    "anytime_accuracy": float(np.mean([row[: place + 1].mean() for place, row in enumerate(matrix)])),
                    "forgetting": float((best - matrix[-1, :-1]).mean()) if experiences > 1 else 0.0,
                    "backward_transfer": float((matrix[-1] - matrix.diagonal())[:-1].mean()) if experiences > 1 else 0.0,
                    "per_class": per_class,
                },
                "plasticity": plasticity_at(random, name, 1.0),
                "memory": {"seen": events * 16, "stored": rows, "replayed": rows * 3, "bytes": rows * 784, "capacity": rows},
                "cost": costs(random, update_ms, rows, events),
                "drift": {
                    "alarms": {
                        "adwin": [int(event + random.integers(3, 12)) for event in checkpoints[:-1]],
                        "page_hinkley": [int(event + random.integers(1, 6)) for event in checkpoints[:-2]],
                        "every(events=20)": list(range(20, events, 20)),
                    },
                    "scores": {
                        "adwin": {"delay": 7.2, "found": len(checkpoints) - 1, "false_per_1000": 0.2},
                        "page_hinkley": {"delay": 3.1, "found": len(checkpoints) - 2, "false_per_1000": 0.0},
                        "every(events=20)": {"delay": 9.8, "found": len(checkpoints) - 1, "false_per_1000": 3.1},
                    },
                },
            }
            used = {"labels": 1438 if name != "frozen" else 288, "updates": steps * experiences, "closed": ""}
            runs.append({"seed": seed, "figures": figures, "curve": curve, "used": used, "sha256": "0" * 64})
        entries.append(
            {
                "label": label,
                "name": name,
                "reference": reference,
                "within_budget": True,
                "error": None,
                "runs": runs,
                "summary": summary_of(runs, "accuracy"),
            }
        )
    stream = {
        "name": f"split(digits, experiences={experiences})",
        "events": events,
        "deployed": checkpoints[0],
        "changes": checkpoints[:-1],
        "checkpoints": checkpoints,
        "held_out": names,
        "classes": labels,
        "headline": "accuracy",
        "boundaries": True,
    }
    config = {
        "stream": stream["name"],
        "model": "mlp(hidden=(100,))",
        "learners": list(learners),
        "seeds": list(seeds),
        "budget": "budget(replay=500)",
        "device": "cpu",
        "engine": "process",
        "command": f"everlearn compare --stream '{stream['name']}' --learners 'replay(capacity=500)' --seeds {len(seeds)}",
        "budget_limits": {"replay": 500, "labels": None},
    }
    return finish(entries, stream, config)


PREQUENTIAL = {
    # label: (name, reference, accuracy before the drift, right after, recovered, update_ms, replay rows)
    "frozen": ("frozen", False, 0.83, 0.64, 0.63, 0.0, 0),
    "fine_tune": ("fine_tune", False, 0.82, 0.66, 0.79, 0.36, 0),
    "retrain(every=1000)": ("retrain", True, 0.83, 0.66, 0.82, 41.0, 0),
    "replay(capacity=1000)": ("replay", False, 0.83, 0.65, 0.80, 0.71, 1000),
    "sklearn(GradientBoosting, refit=every(500))": ("sklearn", False, 0.84, 0.65, 0.78, 22.0, 0),
    "river(HoeffdingTree)": ("river", False, 0.79, 0.66, 0.76, 1.9, 0),
}


def prequential(
    seeds=(0, 1, 2), learners=None, events=4000, drifts=(1500, 2800), points=200, noise=0.006, labels=("no", "yes")
):
    """A table in order of time, judged on each answer before its label is known."""
    learners = PREQUENTIAL if learners is None else learners
    entries = []
    for place, (label, (name, reference, before, after, recovered, update_ms, rows)) in enumerate(learners.items()):
        runs = []
        for seed in seeds:
            random = np.random.default_rng([seed, place, 7])
            shift = random.normal(0, noise)
            levels, curve = [], []
            for event in np.linspace(20, events, points).astype(int):
                last = max((drift for drift in drifts if drift < event), default=None)
                level = before if last is None else recovered + (after - recovered) * np.exp(-(event - last) / 250)
                level = float(np.clip(level + shift + random.normal(0, 0.008), 0, 1))
                levels.append(level)
                stored = int(min(rows, event * 16))
                answered = {"accuracy": level, "total": level}
                if len(curve) % 10 == 9:
                    answered["per_class"] = {labels[0]: level + 0.03, labels[1]: level - 0.12}
                curve.append(
                    {
                        "event": int(event),
                        "prequential": answered,
                        "plasticity": plasticity_at(random, name, event / events),
                        "memory": {"stored": stored, "bytes": stored * 72},
                    }
                )
            accuracy = float(np.mean(levels[points // 8 :]))
            figures = {
                "prequential": {
                    "accuracy": accuracy,
                    "accuracy_all": float(np.mean(levels)),
                    "scored": events * 16,
                    "pending": 0,
                    "per_class": {labels[0]: accuracy + 0.03, labels[1]: accuracy - 0.12},
                },
                "plasticity": plasticity_at(random, name, 1.0),
                "memory": {"seen": events * 16, "stored": rows, "replayed": rows, "bytes": rows * 72, "capacity": rows},
                "cost": costs(random, update_ms, rows, events),
                "drift": {
                    "alarms": {
                        "adwin": [int(drift + random.integers(40, 160)) for drift in drifts],
                        "every(events=400)": list(range(400, events, 400)),
                    },
                    "scores": {
                        "adwin": {"delay": 96.0, "found": len(drifts), "changes": len(drifts), "false_per_1000": 0.1},
                        "every(events=400)": {
                            "delay": 210.0,
                            "found": len(drifts),
                            "changes": len(drifts),
                            "false_per_1000": 2.0,
                        },
                    },
                },
            }
            used = {"labels": events * 16, "updates": events, "closed": ""}
            runs.append({"seed": seed, "figures": figures, "curve": curve, "used": used, "sha256": "0" * 64})
        entries.append(
            {
                "label": label,
                "name": name,
                "reference": reference,
                "within_budget": True,
                "error": None,
                "runs": runs,
                "summary": summary_of(runs, "prequential_accuracy"),
            }
        )
    stream = {
        "name": "table(loans.csv, time=day, target=repaid)", "events": events, "deployed": events // 8, "changes": list(drifts),
        "checkpoints": [], "held_out": [], "classes": list(labels), "headline": "prequential_accuracy", "boundaries": False,
    }  # fmt: skip
    config = {
        "stream": stream["name"], "model": "mlp(hidden=(100,))", "learners": list(learners), "seeds": list(seeds),
        "budget": "budget()", "engine": "process", "command": "everlearn compare --stream 'table(loans.csv, time=day, target=repaid)'",
    }  # fmt: skip
    return finish(entries, stream, config)


def do_not_adapt():
    """Nothing changes, and every learner does a little worse than the frozen model."""
    still = {
        "frozen": ("frozen", False, 0.83, 0.83, 0.83, 0.0, 0),
        "fine_tune": ("fine_tune", False, 0.80, 0.80, 0.80, 0.36, 0),
        "retrain": ("retrain", True, 0.83, 0.83, 0.83, 41.0, 0),
        "replay(capacity=1000)": ("replay", False, 0.81, 0.81, 0.81, 0.71, 1000),
    }
    return prequential(learners=still, drifts=())


def too_close():
    """A gain that is smaller than its interval, and two learners that cannot be told apart."""
    near = {
        "frozen": ("frozen", False, 0.80, 0.80, 0.80, 0.0, 0),
        "fine_tune": ("fine_tune", False, 0.801, 0.801, 0.801, 0.36, 0),
        "retrain": ("retrain", True, 0.82, 0.82, 0.82, 41.0, 0),
        "replay(capacity=1000)": ("replay", False, 0.802, 0.802, 0.802, 0.71, 1000),
    }
    return prequential(learners=near, drifts=(), noise=0.012)


def with_error():
    """One learner failed, one broke the budget."""
    record = class_incremental()
    by_label = {entry["label"]: entry for entry in record["learners"]}
    by_label["derpp(capacity=500, alpha=0.5)"]["within_budget"] = False
    by_label["online_ewc(strength=10.0)"] |= {
        "error": "online_ewc: strength must be a number between 0 and 5, got 10.0. Lower it.",
        "runs": [],
        "summary": {},
    }
    return finish(record["learners"], record["stream"], record["config"])


RECURRING = {
    # label: (name, reference, peak, half, update_ms, replay rows): accuracy of a class is peak * share / (share + half)
    "frozen": ("frozen", False, 0.18, 0.0, 0.0, 0),
    "fine_tune": ("fine_tune", False, 0.97, 0.10, 0.38, 0),
    "retrain": ("retrain", True, 0.96, 0.0, 30.0, 0),
    "fine_tune(loss=masked())": ("fine_tune", False, 0.97, 0.05, 0.41, 0),
    "replay(capacity=200)": ("replay", False, 0.95, 0.01, 0.70, 200),
}


def recurring(seeds=(0, 1, 2), learners=None, noise=0.01):
    """Two of ten classes in each of 100 tasks; the first two of them come in one task of 25, the others in six of 25."""
    learners = RECURRING if learners is None else learners
    record = class_incremental(seeds, learners, experiences=1, steps=399, points=2)
    labels, tasks = record["stream"]["classes"], 100
    shares = [0.04, 0.04] + [0.24] * 8
    checkpoints = list(range(40, 401, 40))
    for place, (label, (_, _, peak, half, _, _)) in enumerate(learners.items()):
        entry = next(entry for entry in record["learners"] if entry["label"] == label)
        for run in entry["runs"]:
            shift = float(np.random.default_rng([run["seed"], place, 3]).normal(0, noise))
            known = {
                text: float(np.clip(peak * share / (share + half) + shift, 0, 1))
                for text, share in zip(labels, shares, strict=True)
            }
            end = float(np.mean(list(known.values())))
            rise = [end * (1 - 0.5 ** (10 * (number + 1) / 15)) / (1 - 0.5 ** (100 / 15)) for number in range(10)]
            run["figures"]["matrix"] |= {
                "matrix": [[value] for value in rise], "names": ["all classes"], "average_accuracy": rise[-1], "per_class": [known] * 10,
            }  # fmt: skip
            run["figures"]["accumulation"] = {
                "curve": [[10 * (number + 1), value] for number, value in enumerate(rise)],
                "end": rise[-1],
                "level": 0.2,
                "instability": 0.02,
                "per_class": known,
                "by_frequency": [
                    {"label": text, "frequency": share, "accuracy": known[text]}
                    for text, share in zip(labels, shares, strict=True)
                ],
                "forgetting_curve": [
                    {"tasks": [2**step // 2, 2**step - 1], "accuracy": known["9"] * (1 - half) ** step, "count": 40 - 8 * step}
                    for step in range(5)
                ],
                "returning": 10,
                "recurrence": {
                    "tasks": tasks, "classes_per_task": 2.0, "expected_gaps": [1 / share for share in shares], "connected": True,
                    "components": [list(range(10))],
                },
                "unit": "task",
                "window": None,
                "passes": 1,
            }  # fmt: skip
            run["curve"] = [
                {
                    "event": event,
                    "matrix": {"average_accuracy": value},
                    "accumulation": {"accuracy": value, "tasks": event // 4},
                }
                for event, value in zip(checkpoints, rise, strict=True)
            ]
            run["used"] = {"labels": 8000, "updates": 400, "closed": ""}
        entry["summary"] = summary_of(entry["runs"], "accuracy")
    record["stream"] |= {
        "name": "recurring(digits, tasks=100)", "events": 400, "deployed": 4, "changes": [], "checkpoints": checkpoints,
        "held_out": ["all classes"],
    }  # fmt: skip
    return finish(record["learners"], record["stream"], record["config"] | {"stream": "recurring(digits, tasks=100)"})


HOSTILE = "<img src=x onerror=alert(1)>"


def hostile():
    """Labels, names and messages that would break a page if they were not escaped."""
    labels = [
        HOSTILE,
        "</script><script>alert(2)</script>",
        "a & b",
        "`tick`",
        "{{ 7 * 7 }}",
        "\u2028",
        "d'or",
        '"quoted"',
        "<!--",
        "9",
    ]
    record = class_incremental(labels=labels)
    record["learners"][5] |= {"error": f"cannot read {HOSTILE}", "runs": [], "summary": {}}
    record["config"]["command"] = f"everlearn compare '{HOSTILE}'"
    return finish(record["learners"], record["stream"], record["config"])


def large():
    """10 learners x 5 seeds on 50 checkpoints with 100 classes."""
    many = {
        f"replay(capacity={500 + number})": ("replay", False, 0.9, 0.9 + 0.008 * number, 0.5 + number, 500)
        for number in range(7)
    }
    base = {key: LEARNERS[key] for key in ("frozen", "fine_tune", "retrain")}
    return class_incremental(range(5), base | many, classes=100, experiences=50, steps=20)


def test_records_hold_what_the_architecture_lists():
    for record in (class_incremental(), prequential(), recurring()):
        assert {"kind", "format", "config", "stream", "learners", "pairs", "verdict", "environment", "seconds"} == set(
            record
        )
        for entry in record["learners"]:
            assert {"label", "name", "reference", "within_budget", "error", "runs", "summary"} == set(entry)
            assert entry["summary"]["score"]["values"]
            assert len(entry["runs"]) == 3


def test_the_law_of_forgetting_is_the_one_above():
    matrix = matrix_of(np.random.default_rng(0), 0.8, 0.5, 3, noise=0.0)
    np.testing.assert_allclose(matrix, [[0.8, 0, 0], [0.24, 0.8, 0], [0.072, 0.4, 0.8]], atol=1e-12)


def test_intervals_are_t_intervals():
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    quantile = 0.95 / (2 * 0.975 * 0.025) ** 0.5  # of Student's t with two degrees of freedom, in closed form
    assert abs(found["high"] - 2.0 - quantile / 3**0.5) < 1e-12

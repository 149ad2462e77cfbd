"""Turning back in words, from records made by hand."""

from everlearn.measure.report.turns import turns


def entry(label, *runs, score=0.5):
    """runs: for each seed the events, and that of stopping; None where the learner tells nothing."""
    told = [
        {
            "seed": seed,
            "figures": {}
            if run is None
            else {"turned_back": {"turned_back": len(run[0]), "events": run[0], "stopped": run[1]}},
        }
        for seed, run in enumerate(runs)
    ]
    values = [len(run[0]) for run in runs if run is not None]
    summary = {"score": {"mean": score}}
    if values:
        summary["turned_back"] = {"mean": sum(values) / len(values)}
    return {"label": label, "name": label.partition("(")[0], "runs": told, "summary": summary, "within_budget": True}


FIRST, SECOND = [1240, "last_good", "the most frequent answer has 62% of the rows"], [1245, "source", "narrow"]


def test_records_without_the_figures_say_nothing():
    assert turns({"learners": []}) == turns({"learners": [entry("tent()", None), {"label": "x", "error": "broken"}]}) == []


def test_one_seed_and_none_that_turned():
    assert turns({"learners": [entry("rollback(tent())", ([], None))]}) == [
        "`rollback(tent())` never turned back in one seed."
    ]
    assert turns({"learners": [entry("rollback(tent())", ([FIRST], None))]}) == [
        "`rollback(tent())` turned back once with seed 0, at event 1,240 to its last good state. The first time the most frequent answer "
        "has 62% of the rows."
    ]


def test_several_seeds_are_averaged_and_the_one_with_most_turns_is_told():
    record = {
        "learners": [
            entry("rollback(tent())", ([], None), ([], None), score=0.4),
            entry("rollback(tent(lr=0.1))", ([FIRST], None), ([FIRST, SECOND], 1245), ([], None), score=0.6),
        ]
    }
    assert turns(record) == [
        "`rollback(tent(lr=0.1))` turned back 1.0 times on average over 3 seeds; twice with seed 1, at event 1,240 to its last good "
        "state and at event 1,245 to its first state. The first time the most frequent answer has 62% of the rows. It stopped adapting "
        "for good with one seed.",
        "`rollback(tent())` never turned back in 2 seeds.",
    ]


def test_many_events_are_cut_short():
    many = [[event, "source", "narrow"] for event in range(9)]
    text = turns({"learners": [entry("rollback(tent())", (many, None))]})[0]
    assert "9 times with seed 0" in text and "at event 5 to its first state and 3 more." in text and "event 6" not in text

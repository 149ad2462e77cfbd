"""Running a study: equal tuning, cells kept on disk, the record and the figure."""

import json

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.studies import runner
from everlearn.studies.runner import in_order, run_study
from everlearn.studies.study import TUNING_SEEDS, Arm, Claim, Measured, Study


class Fixed(Study):
    """Scores that are a formula: the system's best setting is 2, the baseline's is 1."""

    name = "fixed"
    title = "A formula"
    reference = "none"
    measures = {"score": "points", "loss": "what was lost", "never": "what no arm has"}

    def __init__(self):
        self.calls = []

    def seeds(self, scale):
        return (0, 1, 2)

    def arms(self, scale):
        settings = ({"rate": 1}, {"rate": 2})
        return Arm("system", "system", settings), Arm("baseline", "baseline", settings)

    def claims(self, scale):
        return (
            Claim("system is better", "system", "baseline", 0.5),
            Claim("baseline is better", "baseline", "system", 0.5, control=True),
            Claim("the system loses at most 0.2", "", "system", -0.2, measure="loss"),
        )

    def measure(self, arm, setting, scale, seed):
        self.calls.append((arm, setting["rate"], seed))
        rate = setting["rate"]
        score = rate + 0.01 * (seed % 3) if arm == "system" else 1.1 - 0.1 * rate + 0.01 * (seed % 2)
        return Measured({"score": score, "loss": 0.1 + 0.01 * seed}, {"rise": [[1, score / 2], [2, score]]})


@pytest.fixture
def study(monkeypatch):
    """A study whose cells are measured in this process."""
    fixed = Fixed()

    class Here:
        def __init__(self, *arguments, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, *arguments):
            from concurrent.futures import Future

            future = Future()
            future.set_result(function(*arguments))
            return future

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(runner, "study_named", lambda name: fixed)
    return fixed


def test_every_arm_is_tuned_on_the_tuning_seeds_and_reported_on_others(study, tmp_path):
    record = run_study(study, "quick", tmp_path).record
    arms = {arm["label"]: arm for arm in record["arms"]}
    assert arms["system"]["setting"] == {"rate": 2}
    assert arms["baseline"]["setting"] == {"rate": 1}
    assert arms["system"]["measures"]["score"]["values"] == pytest.approx([2.0, 2.01, 2.02])
    assert arms["system"]["measures"]["loss"]["mean"] == pytest.approx(0.11)
    assert arms["system"]["curves"]["rise"] == [pytest.approx([1, 1.005, 1.0, 1.01]), pytest.approx([2, 2.01, 2.0, 2.02])]
    tuned = {(arm, rate) for arm, rate, seed in study.calls if seed in TUNING_SEEDS}
    assert tuned == {("system", 1), ("system", 2), ("baseline", 1), ("baseline", 2)}
    assert record["verdict"] == "HOLDS"
    assert [claim["verdict"] for claim in record["claims"]] == ["HOLDS", "DOES NOT HOLD", "HOLDS"]


def test_what_was_measured_is_not_measured_again(study, tmp_path):
    first = run_study(study, "quick", tmp_path).record
    count = len(study.calls)
    (tmp_path / "shared").mkdir()
    assert run_study(study, "quick", tmp_path).record["arms"] == first["arms"]
    assert len(study.calls) == count and (tmp_path / "shared").exists()
    run_study(study, "quick", tmp_path, resume=False)
    assert len(study.calls) == 2 * count and not (tmp_path / "shared").exists()


def test_the_record_and_the_figure_are_written(study, tmp_path):
    result = run_study(study, "quick", tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == result.record
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "verdict: HOLDS" in result.text()
    assert "control (must not hold)" in result.text() and "what was lost:" in result.text()
    assert list(result.record["measures"]) == ["score", "loss"] and "what no arm has" not in result.text()
    assert "difference -0.110 [-0.135, -0.085], asked -0.200: HOLDS (met by the means)" in result.text()


def test_an_unknown_scale_is_refused(study, tmp_path):
    with pytest.raises(ArgumentError, match="did you mean 'quick'"):
        run_study(study, "quik", tmp_path)


def test_progress_counts_every_cell(study, tmp_path):
    seen = []
    run_study(study, "quick", tmp_path, watch=lambda *at: seen.append(at))
    assert seen[-1] == (1.0, 14, 14)  # 2 arms x 2 settings x 2 tuning seeds + 2 arms x 3 seeds


def test_nobody_waits_for_what_another_seed_makes_while_there_is_work():
    """Two processes: making what a seed's arms share takes 10, an arm 2. Arm after arm, one waits for the third seed's; here none does."""

    def ends(cells):
        free, ready = [0.0, 0.0], {}
        for _, seed in cells:
            which = free.index(min(free))
            begins = free[which]
            if seed not in ready:
                ready[seed] = begins + 10.0
            free[which] = max(begins, ready[seed]) + 2.0
        return max(free)

    arms, seeds = ["a", "b", "c", "d", "e"], (0, 1, 2)
    ours = in_order(arms, seeds)
    assert sorted(ours) == sorted((arm, seed) for arm in arms for seed in seeds) and len(set(ours)) == 15
    assert ends(ours) == 30.0  # all 3 * 10 + 15 * 2 = 60 of the work, by two
    assert ends([(arm, seed) for arm in arms for seed in seeds]) == 34.0

"""The network where none is named: with batch norm where a learner needs it, wherever in the call it stands."""

import pytest
import yaml

from everlearn.cli import main
from everlearn.comparison.building import build_stream
from everlearn.comparison.grid import compare
from everlearn.comparison.usual_network import AUTO, WITH_BATCH_NORM, usual_network
from everlearn.comparison.weighing import weigh
from everlearn.serve.source import source_of

CORRUPTED = "corruptions(digits(side=16), types=('contrast',), rounds=1, rows=64, epochs=1)"


@pytest.mark.parametrize("name", ["bn_stats", "cotta", "eata", "ecotta", "note", "sar", "tent"])
def test_adapters_of_statistics_are_given_batch_norm(name):
    assert usual_network(AUTO, ["frozen", name]) == WITH_BATCH_NORM
    assert usual_network(AUTO, [f"rollback({name}(), patience=2)"]) == WITH_BATCH_NORM
    assert (
        usual_network(AUTO, [f"refresh({name})"]) == usual_network(AUTO, [f"refresh(learner={name}())"]) == WITH_BATCH_NORM
    )


def test_what_is_named_stays_and_other_learners_keep_the_usual_network():
    assert usual_network("small_cnn(width=8)", ["tent"]) == "small_cnn(width=8)"
    assert usual_network(AUTO, ["replay(capacity=50)", "mymodule:Learner(3)", lambda schema, seed: None]) == AUTO
    assert usual_network(AUTO, ["refresh(fine_tune())"]) == usual_network(AUTO, []) == AUTO


def test_learners_of_one_comparison_share_it(tmp_path):
    result = compare("frozen, ecotta", CORRUPTED, seeds=1, engine="inline", baselines=False, folder=tmp_path)
    assert result.record["config"]["model"] == WITH_BATCH_NORM
    assert [row["error"] for row in result.record["learners"]] == [None, None]


def test_one_learner_alone_is_run_and_served_on_it(tmp_path):
    assert main(["run", "bn_stats", CORRUPTED, "--folder", str(tmp_path)]) == 0
    assert yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())["model"] == WITH_BATCH_NORM
    assert source_of("bn_stats", data=CORRUPTED).model == WITH_BATCH_NORM


def test_what_is_weighed_is_weighed_on_it():
    named, usual = (weigh("tent", CORRUPTED, rows=16, **given)[0] for given in ({"model": WITH_BATCH_NORM}, {}))
    assert usual.trained == named.trained and build_stream(CORRUPTED, 0).schema.shape == (1, 16, 16)

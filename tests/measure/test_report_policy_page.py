"""The page of an evaluation: one file that asks for nothing, says the verdict in words, and escapes what a user wrote."""

import re

import torch

from everlearn.data.decision_log import DecisionLog
from everlearn.measure.off_policy import evaluate
from everlearn.measure.report.policy_page import headline, render_policy, rows_of, warnings_of


def record_of(policy="constant(action=0)", rows=200, good=True, first=0.8):
    """A log of a fair coin whose first side pays 0.8, the second 0.2."""
    action = torch.arange(rows) % 2
    reward = torch.where(
        action == 0, (torch.arange(rows) % 10 < 10 * first).double(), (torch.arange(rows) % 10 < 2).double()
    )
    spread = torch.full((rows,), 0.5)
    log = DecisionLog.of(torch.zeros(rows, 1), action=action, propensity=spread, reward=reward, actions=2)
    chosen = torch.tensor([[1.0, 0.0]] if good else [[0.0, 1.0]], dtype=torch.float64).expand(rows, 2)
    found = evaluate(log, chosen, "ridge", ("snips", "dm"), draws=50)
    told = {"rounds": rows, "judged": rows, "trained": 0, "actions": 2}
    return {"policy": policy, "log": told, **found.as_dict(), "environment": {"everlearn": "0", "python": "3"}}


def test_the_verdict_in_words():
    assert re.fullmatch(
        r"`constant\(action=0\)` would earn 0\.8 a round \(.* to .*\), more than the log's 0\.5\.", headline(record_of())
    )
    assert "less than the log's 0.5" in headline(record_of(good=False))
    few = record_of(rows=40)
    assert not few["trusted"] and headline(few) == "This log cannot tell what `constant(action=0)` would earn."
    said = warnings_of(few)
    assert (
        said[0].startswith("This number is worthless")
        and said[1] == "dm: It rests on the reward model alone."
        and len(said) == 2
    )
    assert "earned 0.5 a round" in headline({**record_of(), "policy": "logged()"})


def test_the_table_has_what_must_stand_beside_every_estimate():
    name, value, low, high, ess, weight = rows_of(record_of())[0]
    assert (name, value, ess, weight) == ("snips", "0.8", "100", "2") and float(low) < 0.8 < float(high)


def test_the_page_asks_for_nothing_and_escapes_what_a_user_wrote():
    page = render_policy(record_of(policy="constant(action=0)<script>alert(1)</script>"))
    assert "<script>alert(1)" not in page and "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["']https?:""", page.split('<script type="application/json"')[0])
    assert 'id="chart-estimates"' in page and '"xOffset"' in page

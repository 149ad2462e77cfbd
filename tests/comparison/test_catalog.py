"""What names stand for: every final class is found by its own, and call strings are printed in one way."""

from everlearn.comparison import catalog
from everlearn.core.learner import Learner


def test_every_final_learner_is_found_by_its_name():
    found = catalog.learners()
    assert {"frozen", "fine_tune", "retrain", "replay", "derpp", "online_ewc", "nearest_class_mean", "streaming_lda"} <= set(
        found
    )
    assert {"sklearn", "river"} <= set(found)
    assert all(issubclass(value, Learner) and value.name == name for name, value in found.items())


def test_a_call_string_is_printed_in_one_way():
    assert catalog.normal("replay( capacity = 5 )") == "replay(capacity=5)"
    assert catalog.normal("replay()") == catalog.normal("replay") == "replay"


def test_what_agents_take_goes_before_what_learners_do():
    """`linear` names a network, and for an agent an oracle."""
    assert "linear" in catalog.networks() and "linear" in catalog.policies()
    assert catalog.policies()["linear"] is not catalog.networks()["linear"]
    assert set(catalog.values()) <= set(catalog.policies())

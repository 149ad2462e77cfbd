"""The table of scenarios, and the call strings of the streams that they give."""

import inspect

import pytest

from everlearn.core.spec import build, parse
from everlearn.data.load import SOURCES
from everlearn.data.scenarios import SCENARIOS, VALUES


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_found_by_its_name_and_documented(name):
    scenario = SCENARIOS[name]
    assert scenario.__name__ == name
    assert len(inspect.getdoc(scenario)) > 60
    source, *options = inspect.signature(scenario).parameters.values()
    assert source.name in ("data", "stream", "path")
    assert all(option.kind is option.KEYWORD_ONLY for option in options) or name == "prefix"


@pytest.mark.parametrize(
    "text",
    [
        "split(digits)",
        "split(digits, experiences=2, classes_first=7, boundaries=False)",
        "tasks(digits, test=0.3)",
        "few_shot(digits, base_classes=4, way=2, shot=3, sessions=3, order='given', extra_test=True)",
        "blurry(digits, overlap=0.2, order='given')",
        "permuted(digits, experiences=2, epochs=2)",
        "rotated(digits, degrees=(0, 22.5))",
        "label_shift(digits, kind='gradual', concentration=1.0)",
        "label_swaps(digits, swaps=4, schedule=(0, 4), epochs=2, kind='full')",
        "recurring(digits, tasks=20, class_prob=imbalanced(exponent=2, slope=0.05), drop_after=(10, (3, 4)))",
        "prequential(digits, batch=5, test=0.1)",
        "iid(digits, deployed=0.2)",
        "delayed(split(digits), delay=2, jitter=1, missing=0.5)",
        "prefix(delayed(iid(digits)), events=7)",
        "noisy(split(digits), labels=0.4)",
        "iid(noisy(digits))",
        "link_forecast(euro28(steps=60), changes=(link_down(40, link=('Paris', 'London')), node_up(50, node='Paris')), window=5)",
    ],
)
def test_what_a_stream_is_called_can_be_typed(digits, text):
    stream = build(parse(text), {**VALUES, **SCENARIOS, **SOURCES, "digits": digits})
    assert stream.name == text == repr(stream)

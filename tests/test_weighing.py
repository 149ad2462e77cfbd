"""The verb `memory`, as it is typed."""

import json

from everlearn.cli import main

SMALL = {
    "data": "corruptions(digits(side=8), types=('contrast',), source_batch=16)",
    "model": "conv4(widths=(4, 4))",
    "rows": 24,
}


def test_the_verb_prints_a_table_or_json(capsys):
    words = ["memory", "tent,bn_stats", "--data", SMALL["data"], "--model", SMALL["model"], "--rows", "8"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "batches of 8" in text and "tent" in text and "plain autograd keeps more" in text
    assert main([*words, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["name"] == "tent" and first["total"] == first["parameters"] + first["activations"] > second["total"]
    assert main(["memory", "tentt"]) == 2
    assert "did you mean 'tent'" in capsys.readouterr().err

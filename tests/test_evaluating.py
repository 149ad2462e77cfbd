"""`everlearn evaluate`: the table, the record, the page, and exit codes."""

import json

import torch

from everlearn.cli import main
from everlearn.data.decision_files import write_decisions
from everlearn.data.decision_log import DecisionLog


def logged(path, rows=400):
    random = torch.Generator().manual_seed(1)
    action = torch.randint(0, 2, (rows,), generator=random)
    reward = (torch.rand(rows, generator=random) < torch.where(action == 0, 0.9, 0.1)).double()
    log = DecisionLog.of(
        torch.randn(rows, 2, generator=random), action=action, propensity=torch.full((rows,), 0.5), reward=reward, actions=2
    )
    return str(write_decisions(log, path)), log


def test_a_policy_is_judged_and_all_is_written(tmp_path, capsys):
    path, log = logged(tmp_path / "log.parquet")
    place = tmp_path / "out"
    settings = ["--estimators", "snips, ips(clip=1), dr", "--draws", "50", "--folder", str(place)]
    assert main(["evaluate", path, "--policy", "constant(action=0)", *settings]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "snips" in shown and "ips(clip=1)" in shown and "more than the log's" in shown and "report.html" in shown
    record = json.loads((place / "result.json").read_text())
    first = record["estimates"][0]
    taken = log.action == 0
    assert abs(first["value"] - float(log.reward[taken].mean())) < 1e-12, "snips of one action is its mean"
    assert first["ess"] == int(taken.sum()) and record["log"]["judged"] == 400 and record["trusted"]
    assert (place / "report.html").stat().st_size > 100_000


def test_json_alone_and_the_log_itself(tmp_path, capsys):
    path, log = logged(tmp_path / "log.jsonl", 60)
    assert (
        main(["evaluate", path, "--policy", "logged()", "--json", "--draws", "20", "--folder", str(tmp_path / "out")]) == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in record["estimates"]] == ["ips"]
    assert abs(record["estimates"][0]["value"] - float(log.reward.mean())) < 1e-12


def test_what_is_wrong_has_an_exit_code_and_a_sentence(tmp_path, capsys):
    path, _ = logged(tmp_path / "log.parquet", 30)
    for arguments, code, said in [
        ([path, "--policy", "unifrom()"], 2, "did you mean 'uniform'"),
        ([path, "--estimators", "snip"], 2, "did you mean 'snips'"),
        ([path, "--train", "1.5"], 2, "train must lie between 0 and 1"),
        ([path, "--policy", "constant(action=0)", "--strict", "true"], 3, "worthless"),
        ([str(tmp_path / "none.parquet")], 3, "no such file"),
    ]:
        assert main(["evaluate", *arguments, "--folder", str(tmp_path / "out")]) == code
        assert said in capsys.readouterr().err

"""Rollback: silent where nothing hurts, back where answers collapse, and for good where they collapse again and again."""

from functools import cache

import pytest
import torch
from torch import nn

from everlearn import EATA, Batch, BNStats, FineTune, Rollback, Tent
from everlearn.comparison.building import build_learner, build_stream
from everlearn.core.errors import ArgumentError
from everlearn.core.random import isolated
from everlearn.core.state import capture, same


def network(seed=0):
    with isolated(seed):
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[3].weight.mul_(6.0)
    return model


def batches(count, rows=20):
    random = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 6, generator=random) for _ in range(count)]


def collapsing(**arguments):
    """Tent at a rate at which it gives one answer to everything."""
    return Rollback(Tent(network(), lr=0.3), every=2, window=60, **arguments)


def test_where_nothing_is_wrong_it_is_the_learner_to_the_bit():
    watched, plain = Rollback(Tent(network()), every=2, window=60), Tent(network())
    for x in batches(20):
        assert torch.equal(watched.adapt(x), plain.adapt(x))
    assert watched.history == [] and not watched.stopped
    assert same(capture(watched.learner), capture(plain))


def test_it_goes_back_and_says_so():
    watched, plain, told = collapsing(limit=2), Tent(network(), lr=0.3), []
    for x in batches(60):
        plain.adapt(x)
        told.append(watched.update(Batch(x)))
    turns = [number for number, metrics in enumerate(told, start=1) if metrics.get("rolled_back")]
    assert [seen for seen, _, _ in watched.history] == turns and len(turns) == 3
    assert watched.history[-1][2] == "source" and told[-1] == {"stopped": 1}
    assert all(told[number - 1]["variety_lost"] > 0.15 or told[number - 1]["crowding"] > 0.2 for number in turns)
    weights = (learner.adaptation.model[1].weight for learner in (watched.learner, plain, watched.source))
    held, lost, first = (value.detach().clone() for value in weights)
    assert torch.equal(held, first) and (lost - first).abs().max() > 1.0
    everything = torch.cat(batches(10))
    kept, gone = (learner.predict(everything).argmax(1).bincount(minlength=4).max() for learner in (watched, plain))
    assert torch.equal(watched.predict(everything), watched.source.predict(everything)) and kept < gone


def test_stopped_it_answers_and_changes_no_more():
    watched = collapsing(limit=0)
    for x in batches(60):
        watched.adapt(x)
    assert watched.stopped and len(watched.history) == 1
    before = capture(watched)
    x = batches(1)[0]
    assert torch.equal(watched.adapt(x), watched.predict(x)) and same(before, capture(watched))


def test_saved_in_the_middle_of_its_turns_it_goes_on_to_the_same_bits():
    whole, first = collapsing(limit=9), collapsing(limit=9)
    xs = batches(50)
    for x in xs:
        whole.adapt(x)
    for number, x in enumerate(xs):
        if number in (5, 13, 22, 37):
            moved = collapsing(limit=9)
            moved.load_state_dict(first.state_dict())
            first = moved
        first.adapt(x)
    assert len(whole.history) > 2 and same(capture(whole), capture(first))


def test_switches_change_what_is_done():
    def history(**arguments):
        watched = Rollback(Tent(network(), lr=0.02), **{"every": 2, "window": 60, **arguments})
        for x in batches(60):
            watched.adapt(x)
        return watched.history, watched.stopped

    plain = history()
    assert "last_good" in {where for _, _, where in plain[0]}
    for switch in (
        *({"every": 5}, {"window": 120}, {"variety": 1.0, "crowding": 1.0, "agreement": 0.0}, {"limit": 0}),
        *({"to": "source"}, {"variety": 0.3}),
    ):
        assert history(**switch) != plain, switch
    assert history(variety=1.0, crowding=1.0, agreement=0.0) == ([], False)


def test_labels_reach_the_learner():
    watched, plain = Rollback(network()), FineTune(network())
    batch = Batch(batches(1)[0], torch.arange(20) % 4)
    assert same(capture(watched.update(batch)), capture(plain.update(batch)))
    with pytest.raises(ArgumentError, match="adapts without labels"):
        Rollback(plain)
    with pytest.raises(ArgumentError, match="to must be 'last_good' or 'source'"):
        Rollback(network(), to="yesterday")


@pytest.mark.slow
def test_names_are_call_strings(tmp_path, monkeypatch):
    stream = build_stream("split(digits, experiences=2)", 0)
    code = "from torch import nn\n\ndef build(): return nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))\n"
    (tmp_path / "normed_network.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    texts = ("bn_stats(alpha=0.1)", "tent(lr=0.01, entropy_margin=0.4)", "eata(fisher=False)", "sar(exclude=())")
    texts += ("note(capacity=32)", "cotta(views=gentle(noise=0.01))", "rollback(eata(lr=0.01), every=3)")
    made = [build_learner(text, stream, "normed_network:build", 0) for text in texts]
    assert [repr(learner) for learner in made] == list(texts)
    assert isinstance(made[-1].learner, EATA)


@cache
def digits():
    """A small network trained on clean digits; noisy ones, sorted by class."""
    from sklearn.datasets import load_digits

    bunch, random = load_digits(), torch.Generator().manual_seed(0)
    order = torch.randperm(len(bunch.target), generator=random)
    x, y = torch.tensor(bunch.images, dtype=torch.float32)[order, None] / 16, torch.tensor(bunch.target)[order]
    learner = FineTune(small())
    for epoch in range(8):
        for some in torch.randperm(1000, generator=torch.Generator().manual_seed(epoch)).split(32):
            learner.update(Batch(x[some], y[some]))
    noisy = (x[1000:] + 0.35 * torch.randn(x[1000:].shape, generator=random)).clamp(0.0, 1.0)
    return learner.descent.model.state_dict(), noisy, y[1000:]


def small():
    with isolated(0):
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        for inputs, stride in ((16, 2), (32, 1), (32, 1)):
            layers += [nn.Conv2d(inputs, 32, 3, stride, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))


def accuracy(make, ordered, rounds):
    """Accuracy by round over batches of 16, sorted by class or not, and the learner."""
    state, x, y = digits()
    model = small()
    model.load_state_dict(state)
    learner, shares = make(model), []
    for number in range(rounds):
        random = torch.Generator().manual_seed(number)
        order = y.argsort(stable=True) if ordered else torch.randperm(len(y), generator=random)
        right = [(learner.adapt(x[some]).argmax(1) == y[some]).float().mean() for some in order.split(16) if len(some) == 16]
        shares.append(torch.stack(right).mean().item())
    return shares, learner


@pytest.mark.slow
def test_a_fast_tent_on_sorted_classes_collapses_and_rollback_keeps_it():
    """Ten times the published rate, classes one after the other. The control: the same rate on rows in random order, where it helps."""
    plain, _ = accuracy(lambda model: Tent(model, lr=0.01), True, 6)
    watched, learner = accuracy(lambda model: Rollback(Tent(model, lr=0.01)), True, 6)
    still, _ = accuracy(BNStats, True, 1)
    print(f"Tent {plain}, watched {watched}, batch statistics {still}, history {learner.history}")
    assert plain[-1] < still[0] - 0.2
    assert watched[-1] > still[0] - 0.02 and learner.stopped
    control, silent = accuracy(lambda model: Rollback(Tent(model, lr=0.01)), False, 6)
    unwatched, _ = accuracy(lambda model: Tent(model, lr=0.01), False, 6)
    assert silent.history == [] and control == unwatched
    assert control[-1] > accuracy(BNStats, False, 1)[0][0]

"""Sequences with roles: targets, frequencies, ambiguous tokens, sets to judge by, and what is refused."""

import math

import pytest
import torch

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator
from everlearn.data.roles import PROBES, RoleStream, by_identity

MASKS = [401, 401, 401]


@pytest.fixture(scope="module")
def stream():
    return RoleStream(vocabulary=400, alpha=1.5, seed=3)


def parts(stream, x):
    """(adjective, noun, query) of each sequence, read from the context: the adjective stands right after the copula."""
    rows = range(len(x))
    place = (x[:, :3] == stream.copula).int().argmax(1)
    adjective = x[rows, place + 1]
    noun = torch.where(place == 0, x[:, 2], x[:, 0])
    return adjective, noun, x[:, 3]


def test_targets_follow_the_roles_of_the_context(stream):
    x, y = stream.draw(5000, generator(0, "x"))
    adjective, noun, query = parts(stream, x)
    assert (x[:, 4:] == stream.mask).all() and (y[:, :4] == -100).all()
    assert torch.equal(y[:, 4], adjective) and torch.equal(y[:, 5], query) and torch.equal(y[:, 6], query)
    assert ((query == adjective) | (query == noun)).all()
    for share in ((x[:, 0] == stream.copula), query == noun):
        assert float(share.double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(5000))


def test_a_switched_sequence_has_targets_by_context_and_by_identity(stream):
    probe = stream.probe("switch", 4000)
    adjective, noun, query = parts(stream, probe.x)
    assert (adjective < 200).all() and ((noun >= 200) & (noun < 400)).all()
    for row in range(50):
        a, n, q = int(adjective[row]), int(noun[row]), int(query[row])
        assert probe.y[row, 4:].tolist() == ([a, a, a] if q == a else [a, n, n])
        assert probe.by_identity[row, 4:].tolist() == ([n, a, a] if q == a else [n, n, n])  # a is a noun by identity


@pytest.mark.parametrize(("query", "identity"), [(3, [250, 3, 3]), (250, [250, 250, 250])])
def test_targets_by_identity_of_the_reference(query, identity):
    x = torch.tensor([[400, 3, 250, query, *MASKS]])
    found = by_identity(x, torch.full((1, 7), -100), torch.tensor([3]), torch.tensor([250]))
    assert found.tolist() == [[-100] * 4 + identity]


@pytest.mark.parametrize(
    ("alpha", "known"), [(1.5, (0.404673, 0.143074, 0.878417, 0.003083)), (0.0, (0.005, 0.005, 0.1, 0.1))]
)
def test_frequencies_are_the_truncated_law(alpha, known):
    stream = RoleStream(400, alpha, ambiguous=0.0)
    law = stream._law.diff(prepend=torch.zeros(1, dtype=torch.float64))
    found = (law[0], law[1], law[:20].sum(), law[-20:].sum())
    assert [float(value) for value in found] == pytest.approx(known, abs=1e-6)
    count = 40_000
    adjective, noun, _ = parts(stream, stream.draw(count, generator(1, "many"))[0])
    for ranks in (noun, adjective - 200):
        shares = (ranks == 0).double().mean(), (ranks == 1).double().mean(), (ranks < 20).double().mean()
        for share, chance in zip(shares, known, strict=False):
            assert float(share) == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / count))


def test_ambiguous_tokens_are_of_every_frequency_and_take_either_role(stream):
    chosen = stream.ids("amb")
    assert len(chosen) == 40 and (chosen < 200).sum() == 20
    assert [int(((chosen >= low) & (chosen < low + 40)).sum()) for low in range(0, 400, 40)] == [4] * 10
    flat = RoleStream(400, alpha=0.0, seed=3)
    count = 40_000
    adjective, noun, _ = parts(flat, flat.draw(count, generator(2, "swaps"))[0])
    for swapped, tokens in ((noun >= 200, noun), (adjective < 200, adjective)):
        assert float(swapped.double().mean()) == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / count))
        assert torch.isin(tokens[swapped], flat.ids("amb")).all()
    skewed = RoleStream(400, alpha=1.5, ambiguous=0.5, seed=3)
    _, noun, _ = parts(skewed, skewed.draw(count, generator(2, "swaps"))[0])
    taken, own = noun[noun >= 200], skewed.ids("amb")[100:]  # adjectives in the place of nouns: by the law over their list
    law = torch.arange(1, len(own) + 1).double() ** -1.5
    chance = float(law[0] / law.sum())
    share = float((taken == own[0]).double().mean())
    assert share == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / len(taken)))
    plain = RoleStream(400, alpha=0.0, ambiguous=0.0)
    adjective, noun, _ = parts(plain, plain.draw(2000, generator(2, "swaps"))[0])
    assert (noun < 200).all() and (adjective >= 200).all()


def test_kinds_of_tokens_are_ranks_of_frequency(stream):
    assert stream.ids("head").tolist() == [*range(20), *range(200, 220)]
    assert stream.ids("tail").tolist() == [*range(180, 200), *range(380, 400)]
    assert len(RoleStream(410).ids("tail")) == 2 * 21  # a tenth of 205, rounded up
    assert stream.ids("bin1").tolist() == [*range(40, 80), *range(240, 280)]
    assert set(stream.ids("amb").tolist()) | set(stream.ids("non_amb").tolist()) == set(range(400))
    assert stream.ids("nouns").tolist() == list(range(200)) and stream.ids("adjectives").tolist() == list(range(200, 400))


def test_two_unseen_tokens_make_pairs_of_both_orders():
    probe = RoleStream(400, unseen=2, seed=1).probe("unseen", 500)
    adjective, noun, _ = parts(RoleStream(400, unseen=2, seed=1), probe.x)
    pairs = set(zip(adjective.tolist(), noun.tolist(), strict=True))
    assert pairs == {(402, 403), (403, 402)}


@pytest.mark.parametrize("kind", [kind for kind in PROBES if kind not in ("val", "switch")])
def test_a_set_to_judge_by_holds_the_tokens_of_its_kind(stream, kind):
    probe = stream.probe(kind, 2000)
    adjective, noun, _ = parts(stream, probe.x)
    own = stream.ids(kind.removesuffix("_switch"))
    assert set(adjective.tolist()) | set(noun.tolist()) == set(own.tolist())
    if kind == "unseen":
        assert (adjective != noun).all() and (adjective >= 402).all()
    elif kind.endswith("switch"):
        assert (adjective < 200).all() and (noun >= 200).all()
    else:
        assert (adjective >= 200).all() and (noun < 200).all() and probe.by_identity is None


def test_training_never_shows_unseen_tokens_and_each_batch_is_its_numbers_own(stream):
    again = RoleStream(vocabulary=400, alpha=1.5, seed=3)
    for index in (0, 7, 100_000):
        batch = stream[index]
        assert torch.equal(batch.x, again[index].x) and torch.equal(batch.y, again[index].y)
        assert batch.x.shape == (128, 7) and int(batch.x.max()) <= stream.mask
    assert not torch.equal(stream[0].x, stream[1].x)
    assert not torch.equal(stream.ids("amb"), RoleStream(400, 1.5, seed=4).ids("amb"))
    first, other = (RoleStream(400, 1.5, ambiguous=0.0, seed=seed) for seed in (3, 4))  # nothing is chosen
    assert not torch.equal(first[0].x, other[0].x)
    assert not torch.equal(first.probe("head", 50).x, other.probe("head", 50).x)
    orders = [first.probe(kind, 50).x[:, 0] == first.copula for kind in ("head", "tail")]
    assert not torch.equal(*orders)  # each set draws for itself
    assert torch.equal(stream.probe("val", 50).x, again.probe("val", 50).x)
    assert (stream.size, RoleStream(10_000).size, RoleStream(400, unseen=7).size) == (442, 11_002, 409)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"vocabulary": 401}, "must be even"),
        ({"vocabulary": 18}, "vocabulary must be an int >= 20, got 18"),
        ({"alpha": -0.1}, "alpha must be a number >= 0"),
        ({"ambiguous": 0.6}, "ambiguous must be a number between 0 and 0.5, got 0.6"),
        ({"unseen": 1}, "unseen must be an int >= 2"),
        ({"batch": 0}, "batch must be an int >= 1"),
    ],
)
def test_what_makes_no_stream_is_refused(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        RoleStream(**{"vocabulary": 400, **wrong})


def test_unknown_sets_and_tokens_are_refused(stream):
    with pytest.raises(ArgumentError, match="did you mean 'head_switch'"):
        stream.probe("head_swich")
    with pytest.raises(ArgumentError, match="unknown kind of token 'verbs'"):
        stream.ids("verbs")
    with pytest.raises(ArgumentError, match="no tokens of kind 'amb'"):
        RoleStream(400, ambiguous=0.0).probe("amb")
    for token in (442, -1):
        with pytest.raises(InputError, match=rf"token {token} is outside 0\.\.441"):
            stream.check(torch.tensor([[3, token]]))
    stream.check(stream[0].x)

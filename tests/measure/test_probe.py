"""The linear probe: its steps by a slow twin and by hand, layers apart from each other, roles read by place or by word, refusals."""

import inspect

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.random import generator
from everlearn.data.role_sentences import RoleSentences
from everlearn.data.role_templates import RoleTemplates
from everlearn.data.tagged_sentences import TaggedSentence
from everlearn.measure.probe import Probe, encoder_states, linear_probe, probe_roles
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Normal


def rows(layers=3, count=50, dim=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    states = torch.randn(layers, count, dim, generator=random)
    return states, torch.randint(2, (count,), generator=random)


def test_it_is_a_linear_layer_without_bias_for_each_layer():
    states, labels = rows()
    found = linear_probe(states, labels, epochs=3, lr=0.05, weight_decay=0.1, batch=16, held=0.3, seed=7)
    random = generator(7, "probe")
    order = torch.randperm(50, generator=random)
    train, rest = order[:35], order[35:]
    parts = [part for _ in range(3) for part in train[torch.randperm(35, generator=random)].split(16)]
    for layer in range(3):
        twin = nn.Linear(4, 1, bias=False)
        nn.init.zeros_(twin.weight)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=0.05, weight_decay=0.1)
        for part in parts:
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy(
                torch.sigmoid(twin(states[layer, part])[:, 0]), labels[part].float()
            ).backward()
            optimizer.step()
        torch.testing.assert_close(found.weight[layer], twin.weight.detach()[0], rtol=1e-4, atol=1e-5)
        right = ((twin(states[layer, rest])[:, 0] > 0) == labels[rest].bool()).double().mean()
        assert float(found.held[layer]) == float(right)


def test_one_step_moves_each_weight_by_the_rate():
    """From 0 the gradient of 4 rows is the mean of (1/2 - label) h; the first step of Adam is its sign times the rate."""
    states = torch.tensor([[3.0, -1.0]]).repeat(5, 1)
    probe = linear_probe(states, torch.ones(5), epochs=1, lr=0.25, weight_decay=0.0)
    torch.testing.assert_close(probe.weight, torch.tensor([[0.25, -0.25]]), rtol=1e-6, atol=1e-6)
    assert probe.read(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist() == [[True, False]]
    assert probe.right(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([1, 1])).tolist() == [0.5]


def test_a_score_of_0_reads_0_and_the_share_held_out_is_rounded():
    assert Probe(torch.ones(1, 2), torch.zeros(1)).read(torch.tensor([[[1.0, -1.0], [1.0, 0.0]]])).tolist() == [
        [False, True]
    ]
    assert linear_probe(torch.zeros(10, 2), torch.zeros(10), held=0.06).held.tolist() == [1.0]  # 0.6 rows are one


def test_states_of_any_precision_are_read_and_get_no_gradient():
    states, labels = rows()
    wanted = linear_probe(states, labels)
    for given in (states.double(), states.clone().requires_grad_()):
        found = linear_probe(given, labels)
        assert torch.equal(found.weight, wanted.weight) and torch.equal(found.held, wanted.held)
        assert found.weight.dtype == torch.float32 and given.grad is None and not found.weight.requires_grad


def test_what_is_left_out_is_as_published_and_gradients_may_be_off():
    defaults = {key: value.default for key, value in inspect.signature(linear_probe).parameters.items()}
    published = {"epochs": 4, "lr": 1e-3, "weight_decay": 0.01, "batch": 32, "held": 0.2, "seed": 0}
    assert {key: defaults[key] for key in published} == published
    states, labels = rows()
    wanted = linear_probe(states, labels)
    with torch.no_grad():
        assert torch.equal(linear_probe(states, labels).weight, wanted.weight)


def test_there_is_no_bias():
    """States all on one side of 0, labels split at 1: no plane through 0 parts them better than the more frequent label."""
    h = torch.linspace(0.5, 1.5, 400)[:, None]
    probe = linear_probe(h, h[:, 0] > 1, lr=0.1, epochs=50)
    assert 0.35 < float(probe.held) < 0.65
    assert float(linear_probe(h - 1, h[:, 0] > 1, lr=0.1, epochs=50).held) == 1.0


def test_only_the_layer_that_holds_the_label_reads_it():
    random = torch.Generator().manual_seed(1)
    states = torch.randn(2, 2000, 8, generator=random)
    probe = linear_probe(states, states[1, :, 0] > 0, lr=0.05, epochs=10)
    assert float(probe.held[1]) > 0.97 and float(probe.held[0]) == pytest.approx(0.5, abs=5 * 0.5 / 20)


@pytest.mark.parametrize(
    ("states", "labels", "options", "error", "told"),
    [
        (torch.zeros(4, 2), torch.zeros(5), {}, InputError, r"got \(1, 4, 2\) and \(5,\)"),
        (torch.zeros(4), torch.zeros(4), {}, InputError, r"states must be \(layers, n, dim\)"),
        (torch.full((4, 2), float("nan")), torch.zeros(4), {}, InputError, "states must be finite"),
        (torch.zeros(4, 2), torch.tensor([0, 1, 2, 1]), {}, InputError, "labels must be 0 or 1, got 2"),
        (torch.zeros(4, 2), torch.zeros(4), {"held": 0.0}, InputError, "leaves none to judge by"),
        (torch.zeros(4, 2), torch.zeros(4), {"held": 1.0}, InputError, "leaves none to learn from"),
        (torch.zeros(4, 2), torch.zeros(4), {"epochs": 0}, ArgumentError, "epochs must be an int >= 1"),
        (torch.zeros(4, 2), torch.zeros(4), {"lr": -1.0}, ArgumentError, "lr must be a number >= 0"),
        (torch.zeros(4, 2), torch.zeros(4), {"batch": 0}, ArgumentError, "linear_probe: batch must be an int >= 1"),
        (torch.zeros(4, 2), torch.zeros(4), {"weight_decay": -0.1}, ArgumentError, "weight_decay must be a number >= 0"),
        (torch.zeros(4, 2), torch.zeros(4), {"held": 1.2}, ArgumentError, "held must be a number between 0 and 1, got 1.2"),
        (torch.full((4, 2), float("inf")), torch.zeros(4), {}, InputError, "states must be finite"),
    ],
)
def test_what_cannot_be_probed_is_refused(states, labels, options, error, told):
    with pytest.raises(error, match=told):
        linear_probe(states, labels, **options)


def test_states_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"layers, dim = \(1, 2\), got \(2, 3, 2\)"):
        Probe(torch.zeros(1, 2), torch.zeros(1)).read(torch.zeros(2, 3, 2))


NOUNS, ADJECTIVES = ([f"{letter}{rank:02}" for rank in range(40)] for letter in "na")
PAIRS = list(zip(NOUNS, ADJECTIVES, strict=True))
SENTENCES = [TaggedSentence("1", ("the", noun, "is", adjective), ("DET", "NOUN", "AUX", "ADJ")) for noun, adjective in PAIRS]
SENTENCES += [
    TaggedSentence("2", ("the", adjective, noun, "is"), ("DET", "ADJ", "NOUN", "AUX")) for noun, adjective in PAIRS
]


def by_word_and_by_place(sentences, places):
    """Layer 0 holds what a word is (its first letter), layer 1 where it stands (after "is" or before another word of the lists)."""
    word, place = [], []
    for number, at in places:
        words = sentences[number]
        letter = words[at][0]
        word.append({"n": -1.0, "a": 1.0}.get(letter, 0.0))
        before = words[at - 1]
        adjective = before == "is" or (at + 1 < len(words) and words[at + 1] not in ("is", "."))
        place.append(1.0 if adjective else -1.0)
    return torch.tensor([word, place])[..., None]


def test_layers_that_know_the_word_and_the_place_are_told_apart():
    templates = RoleTemplates(NOUNS, ADJECTIVES, each=5)
    reading = probe_roles(by_word_and_by_place, SENTENCES, templates, count=200, lr=0.05)
    assert reading.held == (1.0, 1.0)
    assert reading.made["head"] == reading.made["tail"] == (1.0, 1.0)
    assert reading.made["head_switch"] == reading.made["tail_switch"] == (0.0, 1.0)
    assert reading.made["unseen"] == (0.5, 1.0)  # thenewtoken begins with t: all are read as nouns


def test_what_is_asked_for_reaches_the_probe_and_the_made_sentences():
    templates, asked = RoleTemplates(NOUNS, ADJECTIVES, each=5), []

    def drawn(sentences, places):
        asked.append(len(places))
        return torch.randn(1, len(places), 6, generator=torch.Generator().manual_seed(len(places)))

    first, again, other = (probe_roles(drawn, SENTENCES, templates, kinds=("tail",), count=30, seed=s) for s in (1, 1, 2))
    assert asked == 3 * [160, 60]  # both words of 80 sentences, and of 30 made ones
    assert first == again != other and list(first.made) == ["tail"]
    with pytest.raises(ArgumentError, match="epochs must be an int >= 1, got 0"):
        probe_roles(drawn, SENTENCES, templates, epochs=0)
    with pytest.raises(ArgumentError, match="probe_roles: count must be an int >= 1, got 0"):
        probe_roles(drawn, SENTENCES, templates, count=0)


def made():
    stream = RoleSentences(SENTENCES, SENTENCES, beside=2, window=2, unseen=10, ambiguous=0.0)
    return stream, TinyEncoder(stream.size, dim=16, depth=1, heads=2, inner=16, length=5, answers=stream.asked, tags=2)


def test_classes_that_stand_in_the_embeddings_are_read_there_wherever_the_word_stands():
    stream, model = made()
    templates = RoleTemplates(NOUNS, ADJECTIVES, each=10, new=10)
    way = torch.tensor([5.0, -5.0] * 8)
    with torch.no_grad():
        model.table[stream.ids("nouns")] += way
        model.table[stream.ids("adjectives")] -= way
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reading = probe_roles(encoder_states(model, stream), SENTENCES, templates, count=500, lr=0.05, epochs=20)
    assert (reading.held[0], reading.made["head"][0], reading.made["tail"][0]) == (1.0, 1.0, 1.0)
    assert (reading.made["head_switch"][0], reading.made["tail_switch"][0]) == (0.0, 0.0)  # an embedding knows no place
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.table[stream.ids("nouns")] -= 2 * way  # now both classes are alike
    blind = probe_roles(encoder_states(model, stream), SENTENCES, templates, count=500, lr=0.05, epochs=20)
    assert blind.made["head"][0] < 0.9 and blind.made["head_switch"][0] > 0.1


def test_states_are_those_of_the_middle_of_each_window(monkeypatch):
    stream, model = made()
    states = encoder_states(model, stream, init=Normal(0.0))
    sentences = [("the", "n03", "is", "a05", "."), ("thenewtoken2", "is", "here")]
    places = [(0, 1), (1, 0), (0, 3)]
    found = states(sentences, places)
    copied = TinyEncoder(stream.size, dim=16, depth=1, heads=2, inner=16, length=5, answers=stream.asked, tags=2)
    copied.load_state_dict(model.state_dict())
    with torch.no_grad():
        copied.table[stream.ids("unseen")] = 0.0  # the law asked for
        windows = torch.stack([stream.around(sentences[number])[word] for number, word in places])
        torch.testing.assert_close(found, copied.layers(windows)[:, :, 2])
    assert found.shape == (2, 3, 16)
    assert not torch.equal(found[:, 1], encoder_states(model, stream)(sentences, places)[:, 1])
    first, other = (encoder_states(model, stream, seed=seed)(sentences, places) for seed in (0, 1))
    assert torch.equal(first[:, [0, 2]], other[:, [0, 2]]) and not torch.equal(first[:, 1], other[:, 1])
    model.std = 0.0  # as wide as the model began
    assert torch.equal(encoder_states(model, stream)(sentences, places), found)
    monkeypatch.setattr("everlearn.measure.probe.ROWS", 2)
    torch.testing.assert_close(encoder_states(model, stream)(sentences, places), found)


def test_functions_that_give_no_states_of_the_places_are_refused():
    templates = RoleTemplates(NOUNS, ADJECTIVES)
    with pytest.raises(
        InputError, match=r"states must give a tensor \(layers, 160, dim\) for as many places, got \(160, 2\)"
    ):
        probe_roles(lambda sentences, places: torch.zeros(len(places), 2), SENTENCES, templates)
    with pytest.raises(ArgumentError, match="hold no word tagged NOUN or ADJ"):
        probe_roles(by_word_and_by_place, [TaggedSentence("1", ("rains",), ("VERB",))], templates)
    with pytest.raises(ArgumentError, match="unknown kind of sentence 'heads'"):
        probe_roles(by_word_and_by_place, SENTENCES, templates, kinds=("heads",))

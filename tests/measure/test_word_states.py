"""Hidden states of words from a small random BERT and GPT-2 with tokenizers made here: means over pieces, new words, refusals."""

import pytest
import torch

from everlearn.core.errors import InputError
from everlearn.data.role_templates import RoleTemplates
from everlearn.data.tagged_sentences import TaggedSentence
from everlearn.measure.probe import probe_roles
from everlearn.measure.word_states import WordStates, new_words
from everlearn.optim.forgetting import Normal

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "rain", "##fall", "is", "cold", ".", "sun"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**sizes, vocab_size=len(PIECES), max_position_embeddings=12)
    return BertModel(config), BertTokenizerFast(str(folder / "vocab.txt"))


@pytest.fixture(scope="module")
def gpt():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(PIECES)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=len(PIECES), n_positions=16))
    return model.eval(), tokenizer


SENTENCES = [("the", "rainfall", "is", "cold", "."), ("sun",)]


def test_a_word_is_the_mean_of_its_pieces_in_every_layer(bert):
    model, tokenizer = bert
    found = WordStates(model, tokenizer)(SENTENCES, [(1, 0), (0, 1), (0, 3)])
    ids = torch.tensor([[2, 5, 6, 7, 8, 9, 10, 3]])  # [CLS] the rain ##fall is cold . [SEP]
    with torch.no_grad():
        model.eval()
        long = torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0]
        short = torch.stack(model(torch.tensor([[2, 11, 3]]), output_hidden_states=True).hidden_states)[:, 0]
    assert found.shape == (3, 3, 16)
    torch.testing.assert_close(found[:, 0], short[:, 1], rtol=1e-4, atol=1e-5)  # padded, and the same
    torch.testing.assert_close(found[:, 1], long[:, 2:4].mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 2], long[:, 5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[:, 1], long[:, 2], atol=1e-3)  # one piece is not the word


def test_batches_change_nothing_and_the_model_keeps_its_mode(bert):
    model, tokenizer = bert
    model.train()
    places = [(0, 1), (1, 0), (0, 4)]
    torch.testing.assert_close(
        WordStates(model, tokenizer, batch=1)(SENTENCES, places), WordStates(model, tokenizer)(SENTENCES, places)
    )
    assert model.training


def test_a_new_word_is_read_as_its_vector_and_nothing_else_changes(bert):
    model, tokenizer = bert
    before = {name: value.clone() for name, value in model.state_dict().items()}
    size = len(tokenizer)
    row = model.get_input_embeddings().weight[9].detach()  # of cold
    sentence = [("the", "thenewtoken0", "is", "cold", ".")]
    twin = [("the", "cold", "is", "cold", ".")]
    places = [(0, 1), (0, 3)]
    states = WordStates(model, tokenizer, new={"thenewtoken0": row})
    torch.testing.assert_close(states(sentence, places), WordStates(model, tokenizer)(twin, places))
    other = WordStates(model, tokenizer, new={"thenewtoken0": -row})(sentence, places)
    assert not torch.allclose(other[1:], states(sentence, places)[1:], atol=1e-3)
    torch.testing.assert_close(states(twin, places), WordStates(model, tokenizer)(twin, places))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(tokenizer) == size and not model.get_input_embeddings()._forward_hooks


def test_new_vectors_have_the_spread_of_the_table_or_the_law_asked_for(bert):
    model, _ = bert
    names = [f"w{number}" for number in range(2000)]
    drawn = torch.stack(list(new_words(model, names).values()))
    spread = float(model.get_input_embeddings().weight.detach().std())
    assert drawn.shape == (2000, 16) and float(drawn.std()) == pytest.approx(spread, rel=0.03)
    assert float(torch.stack(list(new_words(model, names, init=Normal(3.0)).values())).std()) == pytest.approx(3.0, rel=0.03)
    assert torch.equal(new_words(model, names)["w7"], new_words(model, names)["w7"])
    assert not torch.equal(new_words(model, names)["w7"], new_words(model, names, seed=1)["w7"])


def test_a_language_model_is_read_too(gpt):
    model, tokenizer = gpt
    found = WordStates(model, tokenizer)([("the", "sun", "is", "cold")], [(0, 2)])
    with torch.no_grad():
        whole = torch.stack(model(torch.tensor([[5, 11, 8, 9]]), output_hidden_states=True).hidden_states)
    torch.testing.assert_close(found[:, 0], whole[:, 0, 2], rtol=1e-4, atol=1e-5)


def test_roles_are_probed_of_a_users_model(bert):
    """Its embeddings hold what a word is, and where it stands: each word's place decides here, so both are read right."""
    model, tokenizer = bert
    sentences = [TaggedSentence("1", ("the", "sun", "is", "cold"), ("DET", "NOUN", "AUX", "ADJ"))] * 40
    templates = RoleTemplates(("sun", "rain"), ("cold", "cold"), each=1, new=5, template="the {noun} is {adj}")
    states = WordStates(model, tokenizer, new=new_words(model, templates.new))
    reading = probe_roles(states, sentences, templates, count=20, lr=0.05, epochs=20)
    assert len(reading.held) == 3 and reading.held == (1.0, 1.0, 1.0) and reading.made["head"] == (1.0, 1.0, 1.0)
    assert {len(shares) for shares in reading.made.values()} == {3}


def test_what_cannot_be_read_is_refused(bert):
    model, tokenizer = bert
    states = WordStates(model, tokenizer)
    with pytest.raises(InputError, match="there is no word 5 of sentence 0"):
        states(SENTENCES, [(0, 5)])
    with pytest.raises(InputError, match="there is no word 0 of sentence 2"):
        states(SENTENCES, [(2, 0)])
    with pytest.raises(InputError, match="a sentence of 11 words has 13 pieces, and the model takes 12"):
        states([("sun",) * 11], [(0, 0)])
    with pytest.raises(InputError, match=r"the tokenizer makes nothing of '' \(sentence 0\)"):
        states([("the", "")], [(0, 1)])
    with pytest.raises(InputError, match=r"the vector of 'w' must be \(16,\), got \(3,\)"):
        WordStates(model, tokenizer, new={"w": torch.zeros(3)})
    with pytest.raises(InputError, match="object cannot say which word a piece is of"):
        WordStates(model, object())

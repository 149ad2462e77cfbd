"""Weights from elsewhere: they arrive, and what does not fit is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from everlearn.core.errors import DataError, InputError
from everlearn.core.events import Batch
from everlearn.core.stream import Schema
from everlearn.learners.fine_tune import FineTune
from everlearn.nn.foreign import huggingface, pretrained

VECTORS = Schema((4,), torch.float32, ("a", "b", "c"))
TOKENS = Schema((6,), torch.int64, ("a", "b", "c"))


def linear(schema):
    return nn.Linear(schema.shape[0], schema.outputs)


def three_by_four():
    return nn.Linear(4, 3)


@pytest.mark.parametrize("build", [linear, three_by_four])
def test_weights_arrive_bit_for_bit(build, tmp_path):
    source = nn.Linear(4, 3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = pretrained(VECTORS, build, str(tmp_path / "w.safetensors"))
    assert torch.equal(model.weight, source.weight)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_file(nn.Linear(5, 3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not fit Linear"):
        pretrained(VECTORS, linear, str(tmp_path / "w.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="does not fit"):
        pretrained(VECTORS, linear, str(tmp_path / "broken.safetensors"))
    with pytest.raises(DataError, match="no file"):
        pretrained(VECTORS, linear, str(tmp_path / "missing.safetensors"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
    BertForSequenceClassification(BertConfig(**sizes, num_labels=2)).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_a_hugging_face_classifier_learns_like_any_network(tiny):
    torch.manual_seed(0)
    learner = FineTune(huggingface(TOKENS, tiny), passes=60)
    x = torch.tensor([[3] * 6, [7] * 6, [11] * 6])
    learner.update(Batch(x, torch.tensor([0, 1, 2])))
    assert learner.predict(x).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_a_dict_of_tensors_goes_in_by_name(tiny):
    model = huggingface(TOKENS, tiny).eval()
    x = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0))
    whole = {"input_ids": x, "attention_mask": torch.ones_like(x)}
    with torch.no_grad():
        assert torch.allclose(model(whole), model(x), atol=1e-6)


@pytest.mark.slow
def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no classifier can be loaded"):
        huggingface(TOKENS, str(tmp_path))

"""Tokens of texts: those of the tokenizer, whatever the blocks; one file that appears whole and is used again while nothing changed."""

import gzip
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from everlearn.core.errors import DataError, MissingExtraError, StateError
from everlearn.data import hub as hub_room
from everlearn.data import hub_text as room
from everlearn.data.hub_text import HubText, load_tokenizer, text_tokens, vocabulary
from everlearn.data.pretraining import TextDomain

datasets = pytest.importorskip("datasets")
VERSE = "Über allen Gipfeln\nist Ruh,\n\n  in allen Wipfeln\nspürest du\r\nkaum einen Hauch;\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A byte-level BPE of 300 tokens with an end of text, as `save_pretrained` leaves it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    built = ByteLevelBPETokenizer()
    built.train_from_iterator([VERSE], vocab_size=300, min_frequency=1, special_tokens=["<end>"], show_progress=False)
    place = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=built._tokenizer, eos_token="<end>").save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture
def counted(tokenizer, monkeypatch):
    """How many blocks the tokenizer was given."""
    calls = []
    cls = type(tokenizer)
    whole = cls.__call__

    def told(self, texts, **arguments):
        calls.extend(texts)
        return whole(self, texts, **arguments)

    monkeypatch.setattr(cls, "__call__", told)
    return calls


def write(place, text, name="verse.txt"):
    path = place / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_small_text_has_the_tokens_of_the_whole_and_an_end(tokenizer, tmp_path):
    path = write(tmp_path, VERSE)
    tokens = text_tokens([path], tokenizer, tmp_path / "a" / "verse.tokens")
    assert tokens.dtype == torch.uint16 and vocabulary(tokenizer) == 300
    assert tokens.tolist() == [*plain(tokenizer, VERSE), tokenizer.eos_token_id]
    assert len(tokens) < len(VERSE)  # it does join letters


def test_documents_follow_one_another_packed_or_not_and_empty_ones_have_no_end(tokenizer, tmp_path):
    files = [write(tmp_path, VERSE), write(tmp_path, "", "nothing.txt"), write(tmp_path, "kaum", "word.txt.gz")]
    end = tokenizer.eos_token_id
    tokens = text_tokens(files, tokenizer, tmp_path / "tokens")
    assert tokens.tolist() == [*plain(tokenizer, VERSE), end, *plain(tokenizer, "kaum"), end]
    assert text_tokens(files, None, tmp_path / "bytes").tolist() == list(f"{VERSE}\nkaum\n".encode())


def test_blocks_end_with_lines_and_lose_nothing(tokenizer, counted, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "BLOCK", 10)
    monkeypatch.setattr(room, "BLOCKS", 2)
    path = write(tmp_path, VERSE + 35 * "x")
    tokens = text_tokens([path], tokenizer, tmp_path / "tokens")
    # ten characters and what is left of the line, but at most ten more
    blocks = ["Über allen Gipfeln\n", "ist Ruh,\n\n", "  in allen Wipfeln\n", "spürest du\r\n", "kaum einen Hauch;\n"]
    assert counted == [*blocks, 20 * "x", 15 * "x"]
    assert tokenizer.decode(tokens[:-1].tolist()).encode() == path.read_bytes()
    assert tokens.tolist() == [
        *(token for block in counted[:7] for token in plain(tokenizer, block)),
        tokenizer.eos_token_id,
    ]
    counted.clear()
    monkeypatch.setattr(room, "BLOCK", 12)  # as another version may have it, whose tokens are others
    text_tokens([path], tokenizer, tmp_path / "tokens")
    assert counted[:2] == ["Über allen Gipfeln\n", "ist Ruh,\n\n  in allen Wip"]


def test_tokens_are_kept_until_a_text_the_order_or_the_tokenizer_changes(tokenizer, counted, tmp_path):
    first, second = write(tmp_path, VERSE), write(tmp_path, "du", "word.txt")
    cache = tmp_path / "tokens"

    def made_anew(*files, by=tokenizer):
        counted.clear()
        told = text_tokens(files, by, cache).tolist()
        fresh = text_tokens(files, by, tmp_path / f"fresh{len(list(tmp_path.iterdir()))}").tolist()
        assert told == fresh
        return len(counted) > len(files)  # beside those of the fresh file

    assert made_anew(first, second)
    assert not made_anew(first, second)
    assert made_anew(second, first)
    assert made_anew(second)
    write(tmp_path, "kaum", "word.txt")
    assert made_anew(second)
    assert not made_anew(second)
    kept = second.stat()
    write(tmp_path, "Hauch"[:4], "word.txt")  # as long as before
    os.utime(second, ns=(kept.st_atime_ns, kept.st_mtime_ns + 1))
    assert made_anew(second)
    third = write(tmp_path, "Haus", "other.txt")  # as long, and of the same time
    os.utime(third, ns=(kept.st_atime_ns, kept.st_mtime_ns + 1))
    assert made_anew(third)
    stat = third.stat()
    write(tmp_path, "Haus und Hof", "other.txt")  # of the same time, and longer
    os.utime(third, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert made_anew(third) and made_anew(second)
    other = load_tokenizer(tokenizer.name_or_path)
    other.add_tokens(["Hau"])
    assert made_anew(second, by=other)
    other.eos_token = "Ã"
    assert other.eos_token_id != tokenizer.eos_token_id and made_anew(second, by=other)
    cache.write_bytes(cache.read_bytes()[:100])  # cut short
    assert made_anew(second, by=other)


def test_tokens_are_mapped_and_stay_as_they_were_read(tokenizer, tmp_path):
    path = write(tmp_path, VERSE)
    tokens = text_tokens([path], tokenizer, tmp_path / "tokens")
    before = tokens.tolist()
    write(tmp_path, 3 * VERSE)
    again = text_tokens([path], tokenizer, tmp_path / "tokens")
    assert len(again) == 3 * (len(before) - 1) + 1 and tokens.tolist() == before


def test_a_failure_leaves_the_file_that_stood_and_no_other(tokenizer, tmp_path):
    path = write(tmp_path, VERSE)
    place = tmp_path / "kept"
    text_tokens([path], tokenizer, place / "tokens")
    stood = (place / "tokens").read_bytes()
    (place / ".tokens.123").write_bytes(b"of a killed process")
    path.write_bytes(VERSE.encode() + b"\xff")
    with pytest.raises(DataError, match=r"verse.txt: not UTF-8 \(invalid start byte\); convert it, or pre-train on bytes"):
        text_tokens([path], tokenizer, place / "tokens")
    assert (place / "tokens").read_bytes() == stood
    assert sorted(item.name for item in place.iterdir()) == [".lock", "tokens"]
    (tmp_path / "folder.tokens").mkdir()
    write(tmp_path, VERSE)
    with pytest.raises(StateError, match=r"cannot write .*folder.tokens"):
        text_tokens([path], tokenizer, tmp_path / "folder.tokens")


class Numbers:
    """Numbers as tokens, the slow way: no backend and no end."""

    eos_token_id = None

    def __init__(self, known):
        self.known = known

    def get_vocab(self):
        return {str(number): number for number in self.known}

    def __call__(self, texts, add_special_tokens=True, **arguments):
        begun = [0] if add_special_tokens else []
        return {"input_ids": [[*begun, *(int(word) for word in text.split())] for text in texts]}


def test_large_vocabularies_take_int32(tmp_path):
    path, cache = write(tmp_path, "3 65535\n7"), tmp_path / "tokens"
    tokens = text_tokens([path], Numbers(range(65_536)), cache)
    assert tokens.dtype == torch.uint16 and tokens.tolist() == [3, 65535, 7]
    tokens = text_tokens([path], Numbers(range(65_537)), cache)  # another tokenizer by its vocabulary alone
    assert tokens.dtype == torch.int32 and tokens.tolist() == [3, 65535, 7]


def test_a_table_needs_a_row_for_the_highest_number():
    assert vocabulary(Numbers([0, 1, 9])) == 10


def test_a_tokenizer_is_looked_for_in_its_folder_alone(folder, monkeypatch):
    import transformers

    asked = []
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda place, **options: asked.append((place, options))
    )
    load_tokenizer(folder)
    assert asked == [(folder, {"local_files_only": True})]


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append("synced"))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    text_tokens([write(tmp_path, VERSE)], None, tmp_path / "tokens")
    assert done == ["synced", "named"]


def test_what_holds_no_text_or_is_missing_is_refused(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"empty.txt.*no text at all"):
        text_tokens([write(tmp_path, "", "empty.txt")], tokenizer, tmp_path / "tokens")
    with pytest.raises(DataError, match=r"gone\.txt: there is no such file"):
        text_tokens([tmp_path / "gone.txt"], tokenizer, tmp_path / "tokens")
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(VERSE.encode())[:-12])
    with pytest.raises(DataError, match=r"torn.txt.gz: cannot be read"):
        text_tokens([tmp_path / "torn.txt.gz"], tokenizer, tmp_path / "tokens")
    with pytest.raises(DataError, match="there is no folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(DataError, match="none can be loaded from"):
        load_tokenizer(tmp_path)


def test_a_text_of_tokens_shorter_than_a_window_is_refused(tokenizer, tmp_path):
    tokens = text_tokens([write(tmp_path, 5 * VERSE)], tokenizer, tmp_path / "tokens")
    with pytest.raises(DataError, match=r"verse: \d+ tokens .* fewer than a window of 64"):
        TextDomain("verse", tokens, window=64)
    domain = TextDomain("verse", tokens, window=4)
    rows = domain.draw(3, torch.Generator().manual_seed(0))
    starts = torch.randint(len(domain.tokens) - 4, (3,), generator=torch.Generator().manual_seed(0))
    assert rows.tolist() == [tokens[start : start + 5].tolist() for start in starts]


def test_processes_wait_for_the_first_and_read_what_it_wrote(tokenizer, counted, tmp_path):
    path, results, busy = write(tmp_path, VERSE), [], threading.Event()
    slow = type(tokenizer).__call__

    def slowly(self, texts, **arguments):
        busy.set()
        time.sleep(0.3)
        return slow(self, texts, **arguments)

    type(tokenizer).__call__ = slowly  # `counted` puts back what was there before it
    first = threading.Thread(target=lambda: results.append(text_tokens([path], tokenizer, tmp_path / "tokens")))
    first.start()
    busy.wait(10)
    results.append(text_tokens([path], tokenizer, tmp_path / "tokens"))
    first.join(10)
    assert counted == [VERSE] and torch.equal(*results)


# ---- a column of the hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def offered(monkeypatch):
    """The hub answers with this set, whatever is asked."""

    def offer(**columns):
        parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)})
        monkeypatch.setattr(hub_room, "_refuse_unreachable", lambda name: None)
        monkeypatch.setattr(datasets, "load_dataset", lambda name, config=None: parts)

    return offer


def test_rows_of_a_column_are_documents(offered, tokenizer, counted, tmp_path):
    offered(id=[1, 2, 3, 4], text=[VERSE, "", None, "kaum"])
    end = tokenizer.eos_token_id
    source = HubText("someone/verses")
    tokens = text_tokens(source, tokenizer, tmp_path / "tokens").tolist()
    assert repr(source) == "hub_text('someone/verses')" and counted == [VERSE, "kaum"]
    assert tokens == [*plain(tokenizer, VERSE), end, *plain(tokenizer, "kaum"), end]
    counted.clear()
    assert text_tokens(source, tokenizer, tmp_path / "tokens").tolist() == tokens and not counted
    assert bytes(text_tokens(source, None, tmp_path / "bytes").tolist()) == f"{VERSE}\nkaum\n".encode()
    offered(id=[1, 2, 3, 4], text=["du", "", None, ""], content=["kaum", None, None, None])
    assert text_tokens(source, tokenizer, tmp_path / "tokens").tolist() == [*plain(tokenizer, "du"), end]
    content = HubText("someone/verses", column="content")
    assert text_tokens(content, tokenizer, tmp_path / "tokens").tolist() == [*plain(tokenizer, "kaum"), end]


@pytest.mark.parametrize("kind", ["string", "large_string"])
@pytest.mark.parametrize("column", ["text", "content", "document", "sentence"])
def test_a_column_with_the_name_of_a_text_is_taken(kind, column, monkeypatch, tmp_path):
    columns = {"author": ["Goethe"], "sentence": ["d"], "document": ["c"], "content": ["b"], "text": ["a"]}
    given = dict(list(columns.items())[: list(columns).index(column) + 1])  # earlier names go before later ones
    features = datasets.Features({name: datasets.Value(kind) for name in given})
    part = datasets.Dataset.from_dict(given, features=features)
    monkeypatch.setattr(room, "download", lambda name, config: {"train": part})
    tokens = text_tokens(HubText("verses"), None, tmp_path / "bytes")
    assert bytes(tokens.tolist()) == f"{columns[column][0]}\n".encode()


def test_columns_and_parts_that_are_not_there_are_refused(offered, tokenizer, tmp_path):
    offered(id=[1], verse=[VERSE])
    cache = tmp_path / "tokens"
    assert len(text_tokens(HubText("verses", column="verse"), tokenizer, cache))
    for source, told in (
        (HubText("verses"), "no column is named like a text; name one with column=: id, verse"),
        (HubText("verses", column="vers"), "did you mean 'verse'"),
        (HubText("verses", column="id"), r"the column 'id' holds Value\('int64'\), not texts"),
        (HubText("verses", column="verse", split="trian"), "unknown split 'trian'; did you mean 'train'"),
    ):
        with pytest.raises(DataError, match=told):
            text_tokens(source, tokenizer, cache)
    offered(text=["", None])
    with pytest.raises(DataError, match="no text at all"):
        text_tokens(HubText("verses"), tokenizer, cache)


def test_the_library_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"a tokenizer needs the library 'transformers'.*everlearn\[hub\]"):
        load_tokenizer(tmp_path)


def test_the_module_imports_neither_library():
    code = "import sys, everlearn.data.hub_text, everlearn.nn.causal; print({'transformers', 'datasets'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert told.stdout.strip() == "set()"

"""Tagged sentences: both formats, the Web Treebank's own figures, words by tag, and what is refused."""

import gzip
import statistics

import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.tagged_sentences import TaggedSentence, english_web_treebank, read_tagged, words_by_tag

CONLLU = """# sent_id = weblog-7
# text = I don't mind #1.
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tmind\tmind\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tmind\tmind\tVERB\tVB\t_\t_\t_\t_\t_
5\t#\t#\tSYM\tSYM\t_\t4\tobj\t_\t_

1\tRain\train\tNOUN\tNN\t_\t0\troot\t_\t_
"""
TSV = "<s>\tweblog-7\nI\tPRON\ndo\tAUX\nn't\tPART\nmind\tVERB\n#\tSYM\n<s>\t2\nRain\tNOUN\n"


def written(folder, name, text):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.conllu", CONLLU),
        ("a.conllu.gz", CONLLU),
        ("a.tsv", TSV),
        ("a.tsv.gz", TSV),
        ("a.conllu", CONLLU.replace("\n", "\r\n")),
        ("a.conllu", "\ufeff" + CONLLU.rstrip("\n")),
    ],
)
def test_both_formats_give_the_same_sentences(tmp_path, name, text):
    first = TaggedSentence("weblog-7", ("I", "do", "n't", "mind", "#"), ("PRON", "AUX", "PART", "VERB", "SYM"))
    assert read_tagged(written(tmp_path, name, text)) == (first, TaggedSentence("2", ("Rain",), ("NOUN",)))
    assert first.genre == "weblog"


def test_only_line_feeds_end_lines(tmp_path):
    path = written(tmp_path, "a.tsv", "<s>\t1\na\u2028b\tX\n")
    assert read_tagged(path)[0].forms == ("a\u2028b",)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.tsv", "<s>\t1\nrain NOUN\n", r"a\.tsv:2: FORM<TAB>TAG or <s><TAB>ID is expected, got 'rain NOUN'"),
        ("a.tsv", "rain\tNOUN\n", r"a\.tsv:1: a line <s><TAB>ID must begin the first sentence"),
        ("a.tsv", "<s>\t1\nrain\tNOUNS\n", r"a\.tsv:2: unknown tag 'NOUNS'; did you mean 'NOUN'"),
        ("a.tsv", "<s>\t1\n<s>\t2\nrain\tNOUN\n", r"a\.tsv:1: the sentence 1 holds no words"),
        ("a.tsv", "<s>\t1\nrain\tNOUN\n<s>\t2\n", r"a\.tsv:3: the sentence 2 holds no words"),
        ("a.tsv", "\n", "holds no sentences"),
        ("a.conllu", "# sent_id = 1\n", "holds no sentences"),
        ("a.conllu", "1\tRain\tNOUN\n", r"a\.conllu:1: a word of CoNLL-U has 10 columns between tabs, got 3"),
        (
            "a.conllu",
            CONLLU.replace("4\tmind", "x\tmind"),
            r"a\.conllu:7: the first column must be the word's number, got 'x'",
        ),
        ("a.conllu", CONLLU.replace("\tSYM\tSYM", "\tsym\tSYM"), r"a\.conllu:9: unknown tag 'sym'"),
        ("a.txt", TSV, "must be in a .conllu or .tsv file"),
    ],
)
def test_what_is_no_file_of_tagged_sentences_is_refused_by_its_line(tmp_path, name, text, told):
    with pytest.raises(DataError, match=told):
        read_tagged(written(tmp_path, name, text))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tsv: there is no such file"):
        read_tagged(tmp_path / "gone.tsv")
    (tmp_path / "a.tsv").write_bytes(b"<s>\t1\nn\xe9\tNOUN\n")
    with pytest.raises(DataError, match=r"is not UTF-8 \(byte 7\)"):
        read_tagged(tmp_path / "a.tsv")
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(TSV.encode())[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        read_tagged(tmp_path / "a.tsv.gz")


def test_words_of_a_tag_are_those_that_nearly_always_carry_it():
    def said(word, *tags):
        return [TaggedSentence("1", (word,), (tag,)) for tag in tags]

    sentences = [*said("Cat", "NOUN"), *said("cat", *["NOUN"] * 4, "VERB"), *said("set", *["NOUN"] * 8, "VERB", "VERB")]
    sentences += [*said("ant", "NOUN"), *said("red", "ADJ")]
    assert list(words_by_tag(sentences, "NOUN").items()) == [("Cat", 1), ("ant", 1)]  # 4 of 5 is not more than 0.8
    assert list(words_by_tag(sentences, "NOUN", lower=True).items()) == [("cat", 5), ("ant", 1)]  # 5 of 6
    assert list(words_by_tag(sentences, "NOUN", share=0.5)) == ["set", "cat", "Cat", "ant"]
    with pytest.raises(ArgumentError, match="unknown tag 'noun'"):
        words_by_tag(sentences, "noun")
    with pytest.raises(ArgumentError, match=r"no word carries ADV in more than 0\.8"):
        words_by_tag(sentences, "ADV")
    with pytest.raises(ArgumentError, match="share must be a number between 0 and 1, got 2"):
        words_by_tag(sentences, "NOUN", share=2)


def treebank(split):
    try:
        return english_web_treebank(split)
    except DataError:
        pytest.skip("EVERLEARN_DATA has no ud_english_ewt")


def test_the_treebank_has_the_figures_that_are_published_of_it():
    train = treebank("train")
    assert [len(treebank(split)) for split in ("train", "dev", "test")] == [12_544, 2_001, 2_077]
    assert sum(len(sentence.forms) for sentence in train) == 204_577
    assert {sentence.genre for sentence in train} == {"answers", "email", "newsgroup", "reviews", "weblog"}
    nouns = words_by_tag(train, "NOUN")
    assert len(nouns) == 6_815 and len(words_by_tag(train, "ADJ")) == 2_129
    assert statistics.median(nouns.values()) == 1 and statistics.quantiles(nouns.values(), n=100)[-1] == pytest.approx(
        48, abs=1
    )
    assert list(nouns)[:3] == ["time", "people", "way"] and nouns["time"] == 384


def test_the_treebank_is_also_read_as_it_is_published(tmp_path, monkeypatch):
    (tmp_path / "ud_english_ewt").mkdir()
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    written(tmp_path / "ud_english_ewt", "en_ewt-ud-dev.conllu", CONLLU)
    assert english_web_treebank("dev")[0].id == "weblog-7"
    with pytest.raises(DataError, match=r"ud_english_ewt: en_ewt-ud-train\.conllu not found in .*put it into a folder"):
        english_web_treebank("train")
    with pytest.raises(ArgumentError, match="unknown split 'tset'; did you mean 'test'"):
        english_web_treebank("tset")
    monkeypatch.delenv("EVERLEARN_DATA")
    with pytest.raises(DataError, match=r"EVERLEARN_DATA \(not set\)"):
        english_web_treebank("dev")

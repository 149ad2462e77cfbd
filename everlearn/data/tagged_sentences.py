"""Sentences of words with their parts of speech: the English Web Treebank, or a CoNLL-U file of the user's.

    english_web_treebank("train")        the folder ud_english_ewt of EVERLEARN_DATA
    read_tagged("mine.conllu")           any treebank of Universal Dependencies (.conllu), or lines FORM<TAB>TAG (.tsv); both also .gz
    words_by_tag(sentences, "NOUN")      words that carry a tag nearly always, with how often, the most frequent first

In a .tsv a line <s><TAB>ID begins a sentence. Of CoNLL-U the form and the universal tag are read (columns 2 and 4); ranges of words that
are written as one (1-2) and words that are not written (1.1) are left out. Lines end in \\n only: other line breaks may stand in a form.

Reference: Silveira et al. (2014), A gold standard dependency corpus for English, LREC (the treebank, CC BY-SA 4.0). Nivre et al. (2020),
Universal Dependencies v2, LREC, arXiv 2004.10643 (tags and format).
"""

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from everlearn.core.errors import ArgumentError, DataError, check_range, closest
from everlearn.data.folders import roots, where

FOLDER = "ud_english_ewt"
SPLITS = ("train", "dev", "test")
START = "<s>"  # begins a sentence of a .tsv
COLUMNS = 10  # of CoNLL-U
TAGS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM")
TAGS += ("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X")
SHARE = 0.8  # of a word's occurrences that must carry the tag
SHOWN = 60  # characters of a broken line in a message


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence: its id, and as many universal tags as forms.

    >>> TaggedSentence("weblog-1", ("It", "rains"), ("PRON", "VERB")).genre
    'weblog'
    """

    id: str
    forms: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def genre(self) -> str:
        """What stands before the first hyphen of the id; in the Web Treebank answers, email, newsgroup, reviews or weblog."""
        return self.id.partition("-")[0]


def english_web_treebank(split: str = "train") -> tuple[TaggedSentence, ...]:
    """The Web Treebank's sentences: 12,544 to learn from ("train"), 2,001 ("dev") and 2,077 ("test") to judge by.

    Read from SPLIT.tsv.gz or, as published, en_ewt-ud-SPLIT.conllu (also .gz) of the folder `ud_english_ewt` of EVERLEARN_DATA. Raises
    ArgumentError for an unknown split, DataError where there is no such file.
    """
    if split not in SPLITS:
        raise ArgumentError(closest("split", split, SPLITS))
    names = (f"{split}.tsv.gz", f"{split}.tsv", f"en_ewt-ud-{split}.conllu", f"en_ewt-ud-{split}.conllu.gz")
    folders = [root / FOLDER for root in roots() if (root / FOLDER).is_dir()]
    found = next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)
    if found is None:
        looked = str(folders[0]) if folders else where()
        raise DataError(
            f"{FOLDER}: {names[2]} not found in {looked}. It is published at github.com/UniversalDependencies/UD_English-EWT; "
            f"put it into a folder {FOLDER} of EVERLEARN_DATA, or read a file of your own with read_tagged('FILE.conllu')."
        )
    return read_tagged(found)


def read_tagged(path: str | Path) -> tuple[TaggedSentence, ...]:
    """The sentences of a file: .conllu or .tsv, both also .gz. Sentences without an id get their number, counted from 1.

    Raises DataError that names the file and the line.
    """
    path = Path(path)
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in ("conllu", "tsv"):
        raise DataError(f"{path}: tagged sentences must be in a .conllu or .tsv file (both also .gz).")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    read = _conllu if ending == "conllu" else _tsv
    sentences = []
    for number, (name, words) in enumerate(read(path, _lines(path)), start=1):
        forms, tags = zip(*words, strict=True)
        sentences.append(TaggedSentence(name or str(number), forms, tags))
    if not sentences:
        raise DataError(f"{path}: the file holds no sentences.")
    return tuple(sentences)


def words_by_tag(
    sentences: Iterable[TaggedSentence], tag: str, *, share: float = SHARE, lower: bool = False
) -> dict[str, int]:
    """{word: occurrences with the tag}, of words that carry it in more than a share of their occurrences; the most frequent first,
    words as frequent by the alphabet.

    lower: whether letters' case counts not. Raises ArgumentError for an unknown tag or where no word is left.

    >>> rain = TaggedSentence("1", ("The", "rain", "in", "the", "plain"), ("DET", "NOUN", "ADP", "DET", "NOUN"))
    >>> words_by_tag([rain], "NOUN"), words_by_tag([rain], "DET", lower=True)
    ({'plain': 1, 'rain': 1}, {'the': 2})
    """
    if tag not in TAGS:
        raise ArgumentError(closest("tag", tag, TAGS))
    check_range("words_by_tag", "share", share, 0.0, 1.0)
    seen: dict[str, Counter[bool]] = defaultdict(Counter)
    for sentence in sentences:
        for form, own in zip(sentence.forms, sentence.tags, strict=True):
            seen[form.lower() if lower else form][own == tag] += 1
    found = {word: counts[True] for word, counts in seen.items() if counts[True] > share * counts.total()}
    if not found:
        raise ArgumentError(f"words_by_tag: no word carries {tag} in more than {share:g} of its occurrences.")
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line."""
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if path.suffix.lower() == ".gz" else packed).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error
    yield from ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1))


Found = Iterator[tuple[str, list[tuple[str, str]]]]


def _tsv(path: Path, lines: Iterable[tuple[int, str]]) -> Found:
    name, words, begun = "", [], 0
    for number, line in lines:
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != 2 or not all(cells):
            raise DataError(f"{path}:{number}: FORM<TAB>TAG or {START}<TAB>ID is expected, got {line[:SHOWN]!r}.")
        if cells[0] == START:
            if begun and not words:
                raise DataError(f"{path}:{begun}: the sentence {name} holds no words.")
            if words:
                yield name, words
            name, words, begun = cells[1], [], number
            continue
        if not begun:
            raise DataError(f"{path}:{number}: a line {START}<TAB>ID must begin the first sentence, got {line[:SHOWN]!r}.")
        words.append((cells[0], _tag(path, number, cells[1])))
    if begun and not words:
        raise DataError(f"{path}:{begun}: the sentence {name} holds no words.")
    if words:
        yield name, words


def _conllu(path: Path, lines: Iterable[tuple[int, str]]) -> Found:
    name, words = "", []
    for number, line in lines:
        if not line.strip():
            if words:
                yield name, words
            name, words = "", []
        elif line.startswith("#"):
            key, _, value = line[1:].partition("=")
            name = value.strip() if key.strip() == "sent_id" else name
        else:
            cells = line.split("\t")
            if len(cells) != COLUMNS:
                raise DataError(
                    f"{path}:{number}: a word of CoNLL-U has {COLUMNS} columns between tabs, got {len(cells)}: {line[:SHOWN]!r}."
                )
            if cells[0].isdigit():
                words.append((cells[1], _tag(path, number, cells[3])))
            elif not cells[0].replace("-", "").replace(".", "").isdigit():
                raise DataError(f"{path}:{number}: the first column must be the word's number, got {cells[0]!r}.")
    if words:
        yield name, words


def _tag(path: Path, number: int, tag: str) -> str:
    if tag not in TAGS:
        raise DataError(f"{path}:{number}: {closest('tag', tag, TAGS)}")
    return tag

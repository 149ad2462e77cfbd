"""Call strings: what is read is what is written, nothing is evaluated, and what cannot be read is refused in one sentence."""

import math
import string
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from everlearn import Budget, FineTune
from everlearn.core.errors import EverlearnError, SpecError
from everlearn.core.spec import Call, build, describe, import_reference, invoke, lookup, parse, split_list

KEYWORDS = {"False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del"}
KEYWORDS |= {"elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal"}
KEYWORDS |= {"not", "or", "pass", "raise", "return", "try", "while", "with", "yield"}
words = st.text(string.ascii_letters + "_", min_size=1, max_size=8).filter(lambda word: word not in KEYWORDS)
dotted = st.lists(words, min_size=1, max_size=3).map(".".join)
names = dotted | st.tuples(dotted, dotted).map(":".join)
literals = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=4)
)


def calls(inner):
    arguments = st.lists(inner, max_size=3).map(tuple)
    named = st.dictionaries(words, inner, max_size=3).map(lambda items: tuple(items.items()))
    return st.builds(Call, names, arguments, named, st.just(True)) | st.builds(Call, names)


values = st.recursive(
    literals | st.builds(Call, names),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2)
        | calls(inner)
    ),
    max_leaves=8,
)


@given(calls(values))
@settings(max_examples=300, deadline=None)
@example(Call("f", (math.inf, -math.inf), (), True))
@example(Call("f", ({"a": Call("sgd", (), (("lr", 0.1),), True)},), (), True))
@example(Call("f", ("a:b", "it's", 'say "a:b"', "\\", "\n"), (), True))
def test_what_is_written_is_read_back(call):
    assert parse(str(call)) == call
    assert str(parse(str(call))) == str(call)


@given(st.text(max_size=40))
@settings(max_examples=400, deadline=None)
@example("{f(): 1}")
@example("f({[]: 1})")
@example("f({[1]})")
@example("f(**a)")
@example("f(*a)")
@example("f(\x00)")
@example("f" * 10 + "(" * 300)
@example("f(" + "-" * 5000 + "1)")
@example("f(lambda: 1)")
@example("f(x for x in y)")
@example("f(f'{x}')")
@example("f(a := 1)")
@example("f(1)(2)")
@example("f[1]")
@example("f(a=1, a=2)")
def test_any_other_text_is_refused_and_nothing_worse(text):
    try:
        assert isinstance(parse(text), Call)
    except SpecError as error:
        assert "cannot read" in str(error) or "is expected" in str(error)


@pytest.mark.parametrize("value", [None, 3, b"f()", ["f"]])
def test_only_text_is_read(value):
    with pytest.raises(SpecError, match="a call string such as"):
        parse(value)


@pytest.mark.parametrize("text", ["3", "'replay'", "[replay]", "(a, b)", "{}", "1 + 2", "-1", "None"])
def test_a_literal_alone_names_nothing(text):
    with pytest.raises(SpecError):
        parse(text)


def test_nothing_is_evaluated(tmp_path):
    """Python's own builtins are unknown names like any other."""
    mark = tmp_path / "mark"
    hostile = [f"open({str(mark)!r}, 'w')", "__import__('os')", "eval('1')", f"exec({f'open({str(mark)!r})'!r})", "print(1)"]
    for text in hostile:
        with pytest.raises(SpecError, match="unknown learner"):
            build(parse(text), {"replay": dict}, "learner")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a, b", ["a", "b"]),
        ("f(x=1, y=(2, 3)), g([1, 2], {'a': 1, 'b': 2}) ,h", ["f(x=1, y=(2, 3))", "g([1, 2], {'a': 1, 'b': 2})", "h"]),
        ("f('a, b'), g(\"(\")", ["f('a, b')", 'g("(")']),
        ("", []),
        (" , a,, ", ["a"]),
    ],
)
def test_lists_are_split_at_the_outer_commas(text, items):
    assert split_list(text) == items


# ---- building --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    value: float = 0.1
    name: ClassVar[str] = "rate"


class Thing:
    name = "thing"

    def __init__(self, size, *, rate=Rate(), names=(), table=None, model=None, seed=0):
        self.size, self.rate, self.names, self.table, self.model, self.seed = size, rate, names, table, model, seed


TABLE = {"thing": Thing, "rate": Rate, "ten": 10}


@given(st.integers(), st.floats(allow_nan=False), st.lists(st.text(max_size=3)).map(tuple), st.booleans())
@settings(max_examples=80, deadline=None)
def test_an_object_is_described_by_the_call_that_makes_it(size, rate, names, nested):
    table = {"inner": [Rate(rate), (1, None)]} if nested else None
    thing = Thing(size, rate=Rate(rate), names=names, table=table, model="left out", seed=5)
    text = describe(thing)
    again = build(parse(text), TABLE)
    assert (again.size, again.rate, again.names, again.table) == (size, Rate(rate), names, table)
    assert describe(again) == text


def test_defaults_models_and_seeds_are_left_out_of_descriptions(network):
    assert describe(Thing(3)) == "thing(3)"
    assert describe(Thing(3, rate=Rate(0.5), seed=9)) == "thing(3, rate=rate(value=0.5))"
    assert describe(FineTune(network(), passes=2, seed=4)) == "fine_tune(passes=2)"
    assert describe(Budget(labels=3, seconds=math.inf)) == "budget(labels=3, seconds=1e999)"
    assert build(parse("budget(seconds=1e999)"), {"budget": Budget}) == Budget(seconds=math.inf)
    assert describe(Thing) == f"{__name__}:Thing" and describe([Rate(), None, "a"]) == "[rate(), None, 'a']"


def test_arguments_that_share_a_name_with_a_method_are_left_out():
    class Doer:
        name = "doer"

        def __init__(self, act=1, size=2):
            self.size = size

        def act(self):
            """Not the argument."""

        def __repr__(self):
            return describe(self)

    assert repr(Doer(act=5, size=7)) == "doer(size=7)"
    assert describe(Doer().act) == f"{__name__}:{Doer.act.__qualname__}"


def test_names_stand_for_what_the_table_says():
    assert build(parse("thing(ten)"), TABLE).size == 10
    assert build(parse("rate"), TABLE) == build(parse("rate()"), TABLE) == Rate()
    assert build(parse("thing(3, names=(rate, rate(2.0)), table={'a': [rate]})"), TABLE).names == (Rate(), Rate(2.0))
    assert build(parse("elsewhere"), TABLE, unknown=lambda name: name.upper) == "ELSEWHERE"
    assert build(parse("math:pi"), TABLE) == math.pi
    assert build(parse("fractions:Fraction(1, 3)"), TABLE) * 3 == 1
    assert build(parse("fractions:Fraction"), TABLE) is build(parse("fractions:Fraction"), TABLE)
    with pytest.raises(SpecError, match="ten takes no arguments; write ten without brackets"):
        build(parse("ten()"), TABLE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("thign(3)", "unknown component 'thign'; did you mean 'thing'\\? known: rate, ten, thing"),
        ("zzz", "unknown component 'zzz'; known: rate, ten, thing"),
        ("thing(3, siez=4)", "thing: unknown argument 'siez'; did you mean 'size'\\?"),
        ("thing()", "thing: missing a required argument: 'size'; its arguments are: size, rate"),
        ("thing(1, 2)", "thing: too many positional arguments"),
        ("thing(3, size=4)", "thing: multiple values for argument 'size'"),
        ("thing(rate(valeu=1))", "rate: unknown argument 'valeu'; did you mean 'value'\\?"),
        ("no.such.module:Thing()", "cannot import 'no.such.module'.*no such module on the path"),
        ("math:sqr(4)", "math:sqr: unknown name 'sqr'; did you mean 'sqrt'\\?"),
        ("fractions:Fraction.nothing", "fractions:Fraction.nothing: unknown name 'nothing'"),
    ],
)
def test_what_cannot_be_built_is_answered_with_what_can(text, sentence):
    with pytest.raises(SpecError, match=sentence):
        build(parse(text), TABLE)


def test_errors_of_what_is_called_are_its_own():
    def strict(value):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        invoke("strict", strict, [1], {})
    with pytest.raises(EverlearnError, match="labels must be an int >= 0"):
        build(parse("budget(labels=-1)"), {"budget": Budget})


def test_a_module_that_fails_while_it_is_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_library_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library_at_all"):
        import_reference("broken_module:Thing")


def test_lookup_prefers_the_table():
    assert lookup("math:pi", {"math:pi": 3}, "number") == 3

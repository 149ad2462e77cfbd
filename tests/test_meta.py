"""The house as it is described: rooms import one way, modules stay small, public names are documented and tested, imports are quick."""

import ast
import builtins
import inspect
import os
import re
import statistics
import subprocess
import sys
import warnings
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import everlearn
from everlearn.core import errors

TOP = Path(__file__).parents[1]
HOUSE = TOP / "everlearn"
MODULES = sorted(HOUSE.rglob("*.py"))
# the order of docs/architecture.md: a room imports from earlier levels and from itself
LEVELS = (
    ("core",),
    ("data", "nn", "optim", "physics"),
    ("measure",),
    ("learners", "agents", "envs", "generate"),
    ("comparison",),
    ("serve", "studies"),
    ("console",),
    ("comparing", "operating", "asking", "evaluating", "explaining", "pretraining", "weighing"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TESTED = ("learners", "agents", "data", "nn", "optim", "measure", "comparison", "serve", "studies")
WALL, WARNING = 500, 350


def short(path):
    return str(path.relative_to(TOP))


def room_of(path):
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


@cache
def tree_of(path):
    return ast.parse(path.read_text(), filename=short(path))


def imports_of(path):
    """(line, dotted name) of every import of the house in a module, wherever it stands: in functions and under TYPE_CHECKING too."""
    package = [HOUSE.name, *path.relative_to(HOUSE).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names = [text for text in map(text_of, node.args[:1]) if text]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == HOUSE.name)


def text_of(node):
    """The text of a literal, or the part of an f-string before its first gap."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def wrong_imports(path, found):
    """Sentences for imports that go upward or sideways."""
    room = room_of(path)
    for line, name in found:
        steps = name.split(".")
        other = steps[1] if len(steps) > 1 else ""
        if other not in LEVEL:
            if room != "cli":
                yield f"{short(path)}:{line} imports {name}: the package's front door is for users, not for its rooms"
        elif other != room and LEVEL[other] >= LEVEL[room]:
            way = "upward" if LEVEL[other] > LEVEL[room] else "sideways"
            yield f"{short(path)}:{line} imports {way}: {room} -> {other} ({name})"


# ---- rooms -----------------------------------------------------------------------------------------------------------------


def test_every_room_has_its_place():
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set(LEVEL)


def test_the_order_is_the_one_that_is_documented():
    line = next(
        line for line in (TOP / "docs/architecture.md").read_text().splitlines() if line.strip().startswith("core  <-")
    )
    documented = [tuple(name.strip().removesuffix(".py") for name in group.split(",")) for group in line.split("<-")]
    assert documented == list(LEVELS)


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) != "__init__"], ids=short)
def test_imports_point_one_way(path):
    assert not list(wrong_imports(path, imports_of(path)))


def test_the_check_of_directions_finds_what_it_should(tmp_path):
    """A control: the same check on code that breaks every rule."""
    code = """
import everlearn.cli
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from everlearn.learners.replay import Replay
def late():
    from ..measure import metrics
    from everlearn import run
    import importlib
    importlib.import_module(f"everlearn.agents.{late}")
from everlearn.core.events import Batch
from . import keep
from everlearn.nn.features import features
"""
    tree_of_fake = ast.parse(code)
    path = HOUSE / "data" / "fake.py"
    original = tree_of.__wrapped__
    try:
        globals()["tree_of"] = lambda asked: tree_of_fake if asked == path else original(asked)
        found = [sentence.split(" imports ")[1] for sentence in wrong_imports(path, imports_of(path))]
    finally:
        globals()["tree_of"] = cache(original)
    assert sorted(found) == [
        "everlearn.run: the package's front door is for users, not for its rooms",
        "sideways: data -> nn (everlearn.nn.features.features)",
        "upward: data -> agents (everlearn.agents.)",
        "upward: data -> cli (everlearn.cli)",
        "upward: data -> learners (everlearn.learners.replay.Replay)",
        "upward: data -> measure (everlearn.measure.metrics)",
    ]


def modules_imported(path, names):
    """The paths of the modules that a module imports: `package.module.name` is of the module, or a module itself."""
    for _, dotted in imports_of(path):
        for name in (dotted, dotted.rpartition(".")[0]):
            if name in names and names[name] != path:
                yield names[name]
                break


def test_no_modules_import_one_another_in_a_circle():
    """Not even late, in a function: what needs the other way round belongs into one of them."""
    names = {".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
    graph = {path: set(modules_imported(path, names)) for path in MODULES}
    assert sum(map(len, graph.values())) > 1000
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    objective, presets = (HOUSE / "learners" / f"{name}.py" for name in ("objective", "presets"))
    with pytest.raises(CycleError):
        list(TopologicalSorter({**graph, objective: graph[objective] | {presets}}).static_order())


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_names_of_the_house_are_looked_up_only_where_that_is_the_job(path):
    allowed = {"__init__.py", "comparison/catalog.py", "studies/study.py"}
    dynamic = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
        and any((text_of(item) or "").startswith("everlearn") for item in node.args)
    ]
    assert not dynamic or str(path.relative_to(HOUSE)) in allowed


# ---- modules ---------------------------------------------------------------------------------------------------------------


def test_no_module_is_longer_than_the_wall():
    lengths = {short(path): len(path.read_text().splitlines()) for path in MODULES}
    long = {name: length for name, length in lengths.items() if length > WARNING}
    if long:
        warnings.warn(f"longer than {WARNING} lines, ask what second idea moved in: {long}", stacklevel=1)
    assert not {name: length for name, length in long.items() if length > WALL}
    print(f"{len(lengths)} modules, median {statistics.median(lengths.values()):.0f} lines, longest {max(lengths.values())}")
    assert statistics.median(lengths.values()) <= 200


VAGUE = re.compile(r"(^|_)(utils?|helpers?|misc|managers?|common|stuff)(_|$)|^base_")


def test_no_module_has_a_name_that_says_nothing():
    assert not [short(path) for path in MODULES if VAGUE.search(path.stem)]


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# work for other processes is tried on pickle before it is sent; nothing is read with it, and nothing is kept
TRIED = {"comparison/engines.py": {"pickle"}}
FORBIDDEN_CALLS = {
    "pickle.load",
    "pickle.loads",
    "pickle.dump",
    "eval",
    "exec",
    "compile",
    "torch.save",
    "torch.load",
    "numpy.save",
    "yaml.load",
    "yaml.unsafe_load",
}


def dotted(node):
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else ["?"]), *reversed(names)])


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_nothing_is_pickled_or_evaluated(path):
    faults = []
    forbidden = FORBIDDEN_MODULES - TRIED.get(str(path.relative_to(HOUSE)), set())
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            faults += [alias.name for alias in node.names if alias.name.split(".")[0] in forbidden]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            faults.append(node.module)
        elif isinstance(node, ast.Call) and dotted(node.func).replace("np.", "numpy.") in FORBIDDEN_CALLS:
            faults.append(dotted(node.func))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True):
            faults.append("allow_pickle")
    assert not faults


GLOBAL_RANDOM = {"torch.manual_seed", "numpy.random.seed", "random.seed"}
CLOCKS = {"time.time", "time.time_ns", "time.monotonic", "time.perf_counter", "datetime.now", "datetime.datetime.now"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room_of(path) in ("learners", "agents", "data", "nn", "optim")], ids=short
)
def test_nothing_in_a_step_reads_a_clock_or_seeds_the_global_state(path):
    calls = {dotted(node.func).replace("np.", "numpy.") for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}
    assert not calls & (GLOBAL_RANDOM | CLOCKS)


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_public_names_have_doc_strings(path):
    """Modules, functions and classes, and the methods that a contract is the first to name."""
    tree = tree_of(path)
    missing = [] if ast.get_docstring(tree) or not tree.body else ["the module"]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [f"{node.name} (line {node.lineno})"]
            for item in node.body if isinstance(node, ast.ClassDef) else ():
                abstract = isinstance(item, ast.FunctionDef) and "abstractmethod" in map(dotted, item.decorator_list)
                if abstract and not item.name.startswith("_") and not ast.get_docstring(item):
                    missing.append(f"{node.name}.{item.name} (line {item.lineno})")
    assert not missing


def test_every_error_is_in_the_drawing():
    found = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(found) == 10
    for name in found:
        assert re.search(rf"^ +(── |├── |└── |){name} ", errors.__doc__, flags=re.MULTILINE), name


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_errors_raised_on_purpose_are_of_the_tree(path):
    """No bare ValueError, TypeError or assert reaches a user; AttributeError and IndexError are words of Python's protocols."""
    allowed = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    faults = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            faults.append(f"assert (line {node.lineno})")
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            name = node.exc.func.id
            builtin = hasattr(builtins, name)
            if builtin and name not in allowed | {"AttributeError", "IndexError"}:
                faults.append(f"{name} (line {node.lineno})")
    assert not faults


# ---- public names, docs and tests ------------------------------------------------------------------------------------------


@cache
def documentation():
    return "\n".join(path.read_text() for path in [TOP / "README.md", *(TOP / "docs").rglob("*.md")])


@pytest.mark.parametrize("name", everlearn.__all__)
def test_public_names_resolve_and_are_documented(name):
    value = getattr(everlearn, name)
    assert inspect.getdoc(value)
    home = f"::: {value.__module__}"
    page = documentation()
    assert re.search(rf"\b{name}\b", page) or home in page
    assert name in dir(everlearn)


@pytest.mark.slow
def test_compare_can_be_called_whatever_was_imported_first():
    """The room of that name is a module, and its parent's attribute once it is imported."""
    for first in ("everlearn.comparison.grid", "everlearn.comparison.catalog", "everlearn"):
        code = f"import {first}; from everlearn import compare; import everlearn.comparison.job; print(callable(compare))"
        assert in_a_new_process(code).strip() == "True", first
    code = (
        "import everlearn.comparison.catalog, everlearn\n"
        "record = everlearn.compare(['frozen'], 'split(digits, experiences=2)', seeds=1, engine='inline', baselines=False).record\n"
        "print(record['learners'][0]['label'])"
    )
    assert in_a_new_process(code).strip() == "frozen"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Repaly'"):
        everlearn.Repaly  # noqa: B018


def final_classes():
    from everlearn.comparison import catalog

    rooms = (("everlearn.learners", everlearn.Learner), ("everlearn.agents", everlearn.Agent))
    return [cls for package, base in rooms for cls in catalog._final(package, base).values()]


@pytest.mark.parametrize("cls", final_classes(), ids=lambda cls: cls.name)
def test_learners_and_agents_have_a_row_in_the_docs_a_reference_and_a_public_name(cls):
    page = (TOP / "docs/learners.md").read_text()
    row = re.search(rf"^\| `{cls.name}\(", page, flags=re.MULTILINE)
    if issubclass(cls, everlearn.Learner):
        assert row, f"docs/learners.md has no row for {cls.name}"
    assert f"::: {cls.__module__}.{cls.__name__}" in documentation()
    assert getattr(everlearn, cls.__name__) is cls
    assert ">>>" in inspect.getdoc(cls), "the doc-string shows no example"


def is_tested(path):
    """A test file of its name. The report is one unit: its parts may be tested through the parts that use them."""
    if path.stem == "__init__":
        return is_tested(path.parent / "page.py")
    if list((TOP / "tests").rglob(f"test_{path.stem}.py")) or list(
        (TOP / "tests").rglob(f"test_{path.parent.name}_{path.stem}.py")
    ):
        return True
    users = [
        other for other in path.parent.glob("*.py") if path.stem in {name.split(".")[-2] for _, name in imports_of(other)}
    ]
    return path.parent.name == "report" and any(is_tested(other) for other in users if other != path)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room_of(path) in TESTED and path.stem != "__init__"], ids=short
)
def test_every_module_has_its_tests(path):
    assert is_tested(path), f"no tests/**/test_{path.stem}.py"


@pytest.mark.xdist_group("kept together")
def test_groups_of_tests_are_kept_together(request):
    """Where several processes share the tests: pytest-xdist tells a group by the end of a name, and says nothing where that is lost."""
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@kept together")


# ---- what is kept in the repository ----------------------------------------------------------------------------------------


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=False)
    if listed.returncode:
        return [path for path in TOP.rglob("*") if path.is_file() and ".venv" not in path.parts and ".git" not in path.parts]
    return [TOP / name for name in listed.stdout.splitlines() if (TOP / name).is_file()]


def test_no_tracked_file_holds_a_path_of_one_machine():
    machine = re.compile(r"""(?<![\w.~])/(?:work|root|home/\w+|Users/\w+|tmp/\w+|mnt/\w+)(?:/|\b)""")
    faults = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in (".png", ".npz", ".parquet", ".safetensors"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if machine.search(line):
                faults.append(f"{short(path)}:{number}: {line.strip()[:100]}")
    assert not faults


# ---- import time -----------------------------------------------------------------------------------------------------------

HEAVY = (
    "sklearn",
    "scipy",
    "river",
    "altair",
    "pandas",
    "matplotlib",
    "pyarrow",
    "datasets",
    "transformers",
    "ray",
    "rich",
    "PIL",
)
HEAVY += (
    "jsonargparse",
    "jinja2",
    "gymnasium",
    "kornia",
    "mlflow",
    "tensorboard",
    "numba",
    "everlearn.comparison",
    "everlearn.studies",
)


def in_a_new_process(code):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=TOP
    ).stdout


def test_importing_the_package_imports_no_heavy_library():
    code = "import sys, everlearn; everlearn.run, everlearn.FineTune; print(sorted(sys.modules))"
    loaded = ast.literal_eval(in_a_new_process(code))
    plain = ast.literal_eval(in_a_new_process("import sys, torch; print(sorted(sys.modules))"))
    assert [name for name in HEAVY if name in loaded and name not in plain] == []


def test_the_command_line_comes_up_without_torch():
    """`everlearn --help` and a mistyped word are answered before anything heavy is loaded."""
    code = "import sys; from everlearn.cli import parser; parser().format_help(); print(sorted(sys.modules))"
    loaded = ast.literal_eval(in_a_new_process(code))
    assert [name for name in (*HEAVY, "torch") if name in loaded and name != "jsonargparse"] == []


@pytest.mark.slow
def test_importing_the_package_takes_little_more_than_torch():
    """Median of five processes: at most 0.15 s more, also once the names of the fold are used.

    Processor time, so that what else the machine is doing does not count, from where torch has been imported: torch itself takes a
    second and a half, and differs by more than that bound from one process to the next.
    """
    ours = []
    for names in ("", "everlearn.run, everlearn.FineTune"):
        code = (
            f"import time, torch; start = time.process_time(); import everlearn; {names}; print(time.process_time() - start)"
        )
        ours.append(statistics.median(float(in_a_new_process(code.replace("; ;", ";"))) for _ in range(5)))
    print(f"beside torch: import everlearn {ours[0]:.3f} s, with run and FineTune {ours[1]:.3f} s")
    assert max(ours) <= 0.15

"""The command line: the parser of all verbs, and what they end with. Each verb reads its arguments, calls the library, and prints.

`--config FILE.yaml` holds the same names as the flags; `--json` prints one JSON document on standard output and nothing else.
Exit codes are those of core/errors.py, 1 for a claim or contract that does not hold, and 130 for Ctrl-C.
"""

import inspect
import os
import re
import sys
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from argparse import ArgumentError as Refused
from collections.abc import Callable, Sequence
from typing import Any

from everlearn.asking import ask
from everlearn.comparing import compare_, report, run_, study
from everlearn.console import plain_warnings
from everlearn.core.errors import ArgumentError, EverlearnError, SpecError, StateError, closest
from everlearn.evaluating import evaluate
from everlearn.explaining import check, cite, list_, show
from everlearn.operating import backup, export, serve, teach, token
from everlearn.pretraining import pretrain
from everlearn.weighing import memory

EXIT_CODES = """exit codes:
  0 done   1 a claim or contract does not hold   2 names or arguments   3 data   4 snapshots and folders
  5 budget   6 a learner breaks the contract   7 a library is missing   130 interrupted"""


EXAMPLES: dict[str, tuple[Callable, str]] = {
    "compare": (
        compare_,
        """  everlearn compare
  everlearn compare "split(cifar100_12k(labels='coarse'), experiences=5)" --learners "replay(capacity=1000), derpp" --seeds 5
  everlearn compare sales.csv --target bought --time day --model mymodule:build --budget "budget(labels=2000)"
  everlearn compare load.csv --task forecast --target load --time hour --window 24 --horizon 1
  everlearn compare digits --learners "sklearn(RandomForestClassifier(), refit=every(200)), river(tree.HoeffdingTreeClassifier())"
  everlearn compare --config comparison.yaml --engine ray""",
    ),
    "run": (
        run_,
        '  everlearn run "replay(capacity=200)" "split(digits, experiences=5)"\n  everlearn run derpp "permuted(digits)" --seed 3',
    ),
    "study": (study, "  everlearn study replay\n  everlearn study replay --scale full"),
    "evaluate": (
        evaluate,
        """  everlearn evaluate log.parquet --policy "constant(action=2)"
  everlearn evaluate log.dsjson --policy "bandit(explore=greedy(), oracle=logistic())" --estimators snips,dr,mrdr""",
    ),
    "pretrain": (
        pretrain,
        """  everlearn pretrain english.txt german.txt --steps 2000 --folder runs/languages
  everlearn pretrain en=corpora/english de=corpora/german --model "tiny_gpt(dim=128, depth=4)" --replay "replay_mix(0.25, keep=0.05)"
  everlearn pretrain mnist10k --split 5 --model "masked_autoencoder()" --lr 0.008
  torchrun --nproc-per-node 2 -m everlearn pretrain english.txt german.txt --batch 128""",
    ),
    "report": (report, "  everlearn report everlearn-runs/compare-1a2b3c4d --output page.html"),
    "list": (list_, "  everlearn list\n  everlearn list data --json"),
    "show": (
        show,
        """  everlearn show derpp
  everlearn show everlearn-runs/compare-1a2b3c4d
  everlearn show "infinite(0.001, warmup=50, cooldown_end=300)" --steps 1000 --output schedule.png""",
    ),
    "cite": (cite, "  everlearn cite derpp"),
    "serve": (
        serve,
        """  everlearn serve everlearn-runs/compare-1a2b3c4d
  everlearn serve everlearn-runs/compare-1a2b3c4d --learner "replay(capacity=200)" --folder served --port 8080
  everlearn serve served
  everlearn serve "derpp(capacity=500)" --data sales.csv --target bought --model mymodule:build --weights trained.safetensors
  everlearn serve served --host 0.0.0.0 --database postgresql://everlearn@db/served""",
    ),
    "teach": (
        teach,
        """  everlearn teach RUN --class okapi okapi1.jpg okapi2.jpg okapi3.jpg
  everlearn teach RUN/taught --class tapir tapirs/ --resize
  everlearn teach RUN/taught --refresh okapi better/*.jpg
  everlearn teach RUN/taught --remove okapi
  everlearn serve RUN/taught""",
    ),
    "export": (export, "  everlearn export served deployed.parquet\n  everlearn compare deployed.parquet"),
    "backup": (backup, "  everlearn backup served backups/monday\n  everlearn serve backups/monday"),
    "token": (
        token,
        "  everlearn token served shop --scopes predict,feedback\n  everlearn token served anna --scopes admin\n"
        "  everlearn token served shop --revoke true",
    ),
    "ask": (
        ask,
        """  everlearn ask plants.csv --budget 20
  everlearn ask faults.csv --rule "sgbs(beta=0.1)" --flip 0.1 --sure 0.9
  everlearn ask plants.csv --answers mine.csv --json
  everlearn ask plants.csv --budget 12 --simulate""",
    ),
    "memory": (
        memory,
        """  everlearn memory "tent, ecotta, fine_tune, replay(capacity=500)" --model "resnet18(width=8)"
  everlearn memory "bn_stats, cotta" --data "corruptions(cifar100_12k)" --model "cifar_resnet(depth=20)" --rows 32 --json""",
    ),
    "check": (check, '  everlearn check "replay(capacity=50)"\n  everlearn check mymodule:MyLearner'),
}
PLACES = {
    "compare": "[STREAM]",
    "run": "LEARNER STREAM",
    "study": "NAME",
    "evaluate": "LOG",
    "pretrain": "DOMAIN...",
    "report": "FOLDER",
    "list": "[KIND]",
    "show": "NAME",
    "cite": "NAME",
    "serve": "WHAT",
    "teach": "FOLDER --class NAME IMAGE...",
    "export": "FOLDER OUTPUT",
    "backup": "FOLDER TARGET",
    "token": "FOLDER NAME",
    "ask": "TABLE.csv",
    "memory": "LEARNERS",
    "check": "LEARNER",
}
DOMAINS = """NAME=WHAT or WHAT: a text file, a folder of texts or of pictures, files by a pattern ('src/*.py', quoted), texts of the hub
by hub_text('user/name'), or a data set of images by its name or call string"""
KINDS = "learners, agents, networks, scenarios, data, values, studies, or all"
SWITCHES = {
    "resume": (True, "go on where the same command stopped"),
    "resize": (False, "bring images of another size to that of the model"),
    "baselines": (
        True,
        "add frozen, fine_tune and retrain (forecasts: persistence and forecasters) where they are not named",
    ),
    "compiled": (False, "let torch compile the model; needs a C++ compiler"),
    "simulate": (False, "let every object of the table play, and measure the rule beside random questions"),
    "json": (False, "print one JSON document and nothing else"),
}

ROWS = "image files, folders of them, npz files or tables"
LESSONS = {  # what `teach` can be asked for: a name, with the rows behind it
    "add": ("--class", {"nargs": "+", "metavar": ("NAME", "ROWS"), "help": f"the new class, and its rows: {ROWS}"}),
    "refresh": (
        "--refresh",
        {"nargs": "+", "metavar": ("NAME", "ROWS"), "help": "learn a known class anew, from these rows alone"},
    ),
    "remove": ("--remove", {"metavar": "NAME", "help": "never answer with a class again"}),
}


def parser() -> Any:
    """The parser of all verbs."""
    from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    set_parsing_settings(add_print_completion_argument=True)

    class Layout(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keep the examples as they are typed."""

    root = ArgumentParser(
        prog="everlearn",
        description="Models that keep learning after deployment: adapt them, measure what it gained and cost.",
        epilog=EXIT_CODES + '\n\nshell completion:\n  eval "$(everlearn --print_completion shtab-bash)"',
        formatter_class=Layout,
        exit_on_error=False,  # `main` says it in one line
        allow_abbrev=False,  # --seed is not --seeds
        version=_version(),
    )
    verbs = root.add_subcommands(dest="verb", required=True)
    for verb, (function, examples) in EXAMPLES.items():
        summary = (inspect.getdoc(function) or "").split("\n\n")[0]
        part = ArgumentParser(
            usage=f"everlearn {verb} {PLACES[verb]} [options]",
            description=f"{summary}\n\nexamples:\n{examples}",
            epilog=EXIT_CODES,
            formatter_class=Layout,
        )
        part.add_argument("--config", action="config", help="a YAML file with the same names as the flags")
        parameters = inspect.signature(function).parameters
        if verb == "compare":  # a positional default would win over --config, so the option beside it has the default
            told = "a call string, a data set's name, a CSV or Parquet file, or a folder of images (digits, where none is given)"
            part.add_argument("source", nargs="?", metavar="STREAM", default=SUPPRESS, help=told)
        if verb == "pretrain":
            part.add_argument("domains", nargs="+", metavar="DOMAIN", help=DOMAINS)
        if verb == "list":
            part.add_argument("kind", nargs="?", default="all", help=KINDS)
        part.add_function_arguments(
            function, as_group=False, as_positional=True, skip={*SWITCHES, "source", "domains", "kind", *LESSONS}
        )
        for name, (flag, settings) in LESSONS.items():
            if name in parameters:
                part.add_argument(flag, **settings)
        for name, (default, told) in SWITCHES.items():
            if name in parameters:
                part.add_argument(f"--{name}", action=ActionYesNo(no_prefix="no-"), default=default, help=told)
        verbs.add_subcommand(verb, part, help=summary)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser().print_help(sys.stderr)
        return ArgumentError.exit_code
    try:
        if not words[0].startswith("-") and words[0] not in EXAMPLES:
            raise SpecError(closest("verb", words[0], EXAMPLES))
        given = parser().parse_args(words)
    except (Refused, SpecError) as error:
        print(f"everlearn: {_refusal(str(error), words[0])}", file=sys.stderr)
        return ArgumentError.exit_code
    settings = dict(given[given.verb])
    settings.pop("config", None)
    if "class" in settings:  # a word that Python keeps for itself
        settings["add"] = settings.pop("class")
    try:
        with plain_warnings():
            return EXAMPLES[given.verb][0](**settings)
    except EverlearnError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"everlearn: {error}{notes}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `everlearn list | head` has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        return 0
    except OSError as error:
        print(f"everlearn: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return StateError.exit_code
    except KeyboardInterrupt:
        print("everlearn: interrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _refusal(said: str, verb: str) -> str:
    """What the parser refuses, in one line that names the flag and where all of them stand."""
    if verb not in EXAMPLES:
        return said
    help_of = f"`everlearn {verb} --help`"
    flag = re.search(r"unrecognized arguments: (--[\w-]+)", said)
    if flag:
        known = (
            LESSONS[name][0] if name in LESSONS else f"--{name}" for name in inspect.signature(EXAMPLES[verb][0]).parameters
        )
        return f"{verb}: {closest('flag', flag[1], known, told=f'{help_of} names all')}"
    said = re.sub(r'Parser key "(\w+)":', r"--\1:", " ".join(said.split())).replace(f"required: {verb}.", "required: ")
    return f"{verb}: {said.rstrip('.')}. See {help_of}."


def _version() -> str:
    from everlearn import __version__

    return __version__

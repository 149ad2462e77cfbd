"""The command line: verbs only. Each verb reads its arguments, calls the library, and prints.

`--config FILE.yaml` holds the same names as the flags; `--json` prints one JSON document on standard output and nothing else.
Exit codes are those of core/errors.py, 1 for a claim or contract that does not hold, and 130 for Ctrl-C.
"""

import hashlib
import inspect
import json
import os
import re
import shlex
import sys
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from argparse import ArgumentError as Refused
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from everlearn.asking import ask
from everlearn.console import Bar, plain_warnings, print_comparison, print_figures, print_json, say
from everlearn.core.errors import ArgumentError, EverlearnError, SpecError, StateError, closest
from everlearn.evaluating import evaluate
from everlearn.explaining import check, cite, list_, show
from everlearn.operating import backup, export, serve, teach, token
from everlearn.pretraining import pretrain
from everlearn.weighing import memory

RUNS = Path("everlearn-runs")
USUAL = "replay(capacity=200), derpp(capacity=200), streaming_lda, nearest_class_mean"
FORECASTERS = "forecaster(cfc()), forecaster(dense(), refit=on_drift(adwin())), boosted"
RECURRING = "fine_tune, fine_tune(loss=masked()), frequency_replay, replay(capacity=200)"  # is plain SGD enough?
BY_STREAM = {"recurring(": RECURRING, "forecast(": FORECASTERS, "link_forecast(": FORECASTERS}

EXIT_CODES = """exit codes:
  0 done   1 a claim or contract does not hold   2 names or arguments   3 data   4 snapshots and folders
  5 budget   6 a learner breaks the contract   7 a library is missing   130 interrupted"""


def compare(
    learners: str | list[str] | None = None,
    model: str = "auto",
    seeds: int = 3,
    budget: str = "budget()",
    target: str | None = None,
    time: str | None = None,
    task: str = "classify",
    window: int = 24,
    horizon: int = 1,
    engine: str = "process",
    workers: int | None = None,
    folder: str | None = None,
    device: str = "cpu",
    track: str | None = None,
    stream: str = "digits",
    *,
    source: str | None = None,
    resume: bool,
    baselines: bool,
    json: bool,
) -> int:
    """Run learners beside the baselines and say whether adapting is worth it.

    Args:
        learners: call strings, separated by commas (a YAML list in --config); by default replay(capacity=200), derpp(capacity=200),
            streaming_lda and nearest_class_mean, or what is cheap on a recurring stream: fine_tune(loss=masked()),
            frequency_replay and replay(capacity=200), or forecasters of three kinds where values are forecast
        model: the network that every learner trains, such as mlp(hidden=(64,)) or mymodule:build
        seeds: repetitions with seeds 0, 1, ...
        budget: limits, such as budget(replay=500, labels=1000)
        target: the column to predict, where STREAM is a CSV or Parquet file (to forecast, several between commas)
        time: the column that orders the rows, where STREAM is a CSV or Parquet file
        task: classify, or forecast: the target's own future from its past, where STREAM is a CSV or Parquet file
        window: samples that a forecast sees
        horizon: samples from the end of a window to what is forecast
        engine: process, inline, ray, or the address of a Ray cluster
        workers: processes at once (default: all processors)
        folder: where runs and report go (default: a folder of everlearn-runs/ named by the configuration)
        device: cpu, cuda, or auto
        track: also export to mlflow or tensorboard
        stream: the same as STREAM, for --config
    """
    from everlearn.comparison.catalog import build_budget, stream_text
    from everlearn.comparison.grid import compare as run_comparison
    from everlearn.comparison.track import export, tracker

    stream = source or stream
    if task != "classify":
        stream = stream_text(stream, target=target, time=time, task=task, window=window, horizon=horizon)
        target = time = None
    learners = learners or next((usual for start, usual in BY_STREAM.items() if stream.startswith(start)), USUAL)
    if track is not None:
        tracker(track)
    place = (
        Path(folder)
        if folder
        else RUNS / f"compare-{_fingerprint(stream, learners, model, seeds, budget, target, time, baselines, device)}"
    )
    with Bar(f"comparing on {stream}", quiet=json) as bar:
        result = run_comparison(
            learners,
            stream,
            model=model,
            seeds=seeds,
            budget=build_budget(budget),
            target=target,
            time=time,
            engine=engine,
            workers=workers,
            folder=place,
            resume=resume,
            baselines=baselines,
            device=_device(device),
            command=" ".join(["everlearn", *map(_quoted, sys.argv[1:])]),
            watch=bar.move,
        )
    if track is not None:
        export(result.record, track, place)
    if json:
        return print_json(result.record)
    print_comparison(result.record)
    say(f"report: {place / 'report.html'}")
    return 0


def run(
    learner: str,
    stream: str,
    model: str = "auto",
    seed: int = 0,
    budget: str = "budget()",
    folder: str | None = None,
    device: str = "cpu",
    *,
    resume: bool,
    json: bool,
) -> int:
    """Fold one learner over one stream.

    Args:
        learner: a call string, such as replay(capacity=500)
        stream: a call string, such as split(digits, experiences=5)
        model: the network that the learner trains
        seed: seeds class order, network, memory and learner
        budget: limits, such as budget(labels=1000)
        folder: where snapshots and result.json go (default: a folder of everlearn-runs/ named by the configuration)
        device: cpu, cuda, or auto
    """
    from everlearn.comparison.catalog import build_budget, normal, stream_text
    from everlearn.comparison.job import Job, raise_fault, run_folder, run_job

    text = stream_text(stream)
    place = folder or str(RUNS / f"run-{_fingerprint(learner, text, model, seed, budget)}")
    label = normal(learner)
    job = Job(
        0, label, label, text, model, seed, build_budget(budget), place, resume, _device(device), ("", str(Path.cwd()))
    )
    with Bar(f"{label} on {text}", quiet=json) as bar:
        record = run_job(job, lambda number, share: bar.move(share, int(share == 1), 1))
    if record["error"]:
        raise_fault(record)
    if json:
        return print_json({key: value for key, value in record.items() if key != "curve"})
    print_figures(record["figures"])
    say(f"folder: {run_folder(job)}")
    return 0


def study(name: str, scale: str = "quick", folder: str | None = None, *, resume: bool, json: bool) -> int:
    """Re-run the claim of a published system and say HOLDS, DOES NOT HOLD or TOO SMALL TO TELL.

    Args:
        name: which study; `everlearn list studies` names them
        scale: quick (minutes) or full
        folder: where result.json and the figure go (default: everlearn-runs/study-NAME-SCALE)
    """
    from everlearn.studies.runner import run_study
    from everlearn.studies.study import study_named

    found = study_named(name)
    place = Path(folder) if folder else RUNS / f"study-{name}-{scale}"
    with Bar(f"study {name} ({scale})", quiet=json) as bar:
        result = run_study(found, scale, place, resume=resume, watch=bar.move)
    if json:
        return print_json(result.record)
    say(result.text())
    say(f"figure: {place / 'figure.png'}")
    return 0 if result.verdict == "HOLDS" else 1


def report(folder: str, output: str | None = None, *, json: bool) -> int:
    """Make the report of a finished comparison again.

    Args:
        folder: the folder of a comparison
        output: where to write the page (default: FOLDER/report.html)
    """
    from everlearn.comparison.grid import load_comparison

    result = load_comparison(folder)
    if json:
        return print_json(result.record)
    path = result.report(output or Path(folder) / "report.html")
    print_comparison(result.record)
    say(f"report: {path}")
    return 0


EXAMPLES: dict[str, tuple[Callable, str]] = {
    "compare": (
        compare,
        """  everlearn compare
  everlearn compare "split(cifar100_12k(labels='coarse'), experiences=5)" --learners "replay(capacity=1000), derpp" --seeds 5
  everlearn compare sales.csv --target bought --time day --model mymodule:build --budget "budget(labels=2000)"
  everlearn compare load.csv --task forecast --target load --time hour --window 24 --horizon 1
  everlearn compare digits --learners "sklearn(RandomForestClassifier(), refit=every(200)), river(tree.HoeffdingTreeClassifier())"
  everlearn compare --config comparison.yaml --engine ray""",
    ),
    "run": (
        run,
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
  torchrun --nproc-per-node 2 -m everlearn.cli pretrain english.txt german.txt --batch 128""",
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


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ArgumentError(f"device {name!r} was asked for, but this machine has no CUDA device; use cpu or auto.")
    if name != "cpu" and not name.startswith("cuda"):
        raise ArgumentError(f"device must be cpu, cuda, cuda:NUMBER or auto, got {name!r}.")
    return name


def _quoted(word: str) -> str:
    """A word as it would be typed in a shell: in double quotes where it holds single ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _fingerprint(*settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]


if __name__ == "__main__":
    sys.exit(main())

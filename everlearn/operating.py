"""The verbs of those who operate a model: serve, teach, export, backup, token."""

import warnings
from pathlib import Path

from everlearn.console import print_json, say


def serve(
    what: str,
    folder: str | None = None,
    learner: str | None = None,
    data: str | None = None,
    target: str | None = None,
    model: str = "auto",
    weights: str | None = None,
    seed: int = 0,
    options: str | None = None,
    alarms: str | None = None,
    webhook: str | None = None,
    database: str | None = None,
    engine: str = "local",
    name: str | None = None,
    replicas: int = 2,
    host: str = "127.0.0.1",
    port: int = 8000,
    rate: float | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> int:
    """Serve a model over HTTP that learns from late feedback, survives a crash, and can be rolled back.

    Args:
        what: the folder of a comparison or run, a server's own folder (goes on where it stopped), or a call string with --data
        folder: where log and versions are kept (default: a folder of everlearn-served/ named by learner and origin)
        learner: which learner of a comparison (default: the one that it recommends)
        data: for a call string, the data whose rows look like those to come, such as digits or sales.csv
        target: the column to predict, where --data is a table
        model: the network that the learner trains, such as mlp(hidden=(64,)) or mymodule:build
        weights: a safetensors file for the network
        seed: of the run to serve, or of a new learner
        options: how it learns, such as "options(batch=64, wait=2.0, every=20, horizon=86400)"; kept for the next start
        alarms: limits, such as "alarms(psi=0.3, freeze=('performance',))"; kept for the next start
        webhook: a URL to which alarms are posted, signed where EVERLEARN_WEBHOOK_SECRET is set
        database: postgresql://... keeps the log there, for several server processes (default: SQLite in the folder)
        engine: local, ray, or the address of a Ray cluster
        name: of the model on a Ray cluster (default: the folder's)
        replicas: processes that predict on Ray
        host: the address to listen on; beyond this machine only with a token
        port: 0 takes a free one
        rate: rows a second that each client may send
        certificate: a file for TLS
        key: the certificate's key
    """
    from everlearn.serve.start import start

    start(
        what,
        folder=folder,
        learner=learner,
        data=data,
        target=target,
        model=model,
        weights=weights,
        seed=seed,
        options=options,
        alarms=alarms,
        webhook=webhook,
        database=database,
        engine=engine,
        name=name,
        replicas=replicas,
        host=host,
        port=port,
        rate=rate,
        certificate=certificate,
        key=key,
        announce=lambda line: print(line, flush=True),
    )
    return 0


def teach(
    folder: str,
    output: str | None = None,
    learner: str | None = None,
    seed: int = 0,
    *,
    add: list[str] | None,
    refresh: list[str] | None,
    remove: str | None,
    resize: bool,
    json: bool,
) -> int:
    """Teach a trained few_shot model one more class from a few labelled images, or take a class away.

    Args:
        folder: the folder of a run or comparison of few_shot, or of earlier lessons
        output: where lessons are kept (default: FOLDER/taught, or FOLDER where that holds lessons already)
        learner: which learner of a comparison (default: the one that it recommends)
        seed: of the run of a comparison
    """
    from everlearn.comparison.job import reach
    from everlearn.serve.teach import sentences
    from everlearn.serve.teach import teach as teach_class

    reach(["", str(Path.cwd())])
    names = {"add": add, "refresh": refresh}
    given = {key: words[0] if words else None for key, words in names.items()}
    files = [file for words in names.values() for file in (words or [])[1:]]
    places = {"output": output, "learner": learner, "seed": seed}
    found = teach_class(folder, **given, remove=remove, files=files, resize=resize, **places)
    if json:
        return print_json(found)
    for line in sentences(found):
        say(line)
    return 0


def export(folder: str, output: str, version: int | None = None, force: bool = False, *, json: bool) -> int:
    """Write the log of a server as a Parquet file that compare and run take as a stream.

    Args:
        folder: a server's folder; the server may be running
        output: the Parquet file to write
        version: end with what this version had learned (default: all that was learned)
        force: replace a file that stands
    """
    from everlearn.serve.start import export_log

    written = export_log(folder, output, version, force=force)
    if json:
        return print_json(written)
    say("{steps} steps with {inputs} predictions and {answers} answers: {path}".format(**written))
    return 0


def backup(folder: str, target: str, *, json: bool) -> int:
    """Copy a server's folder, log and versions, while it runs.

    Args:
        folder: a server's folder
        target: a folder that does not exist yet, or is empty; `everlearn serve TARGET` serves the copy
    """
    from everlearn.serve.start import back_up

    copied = back_up(folder, target)
    if json:
        return print_json(copied)
    say("{versions} versions and a log of {bytes} bytes: {path}".format(**copied))
    return 0


def token(folder: str, name: str, scopes: str = "predict,feedback", rate: float | None = None, revoke: bool = False) -> int:
    """Make a bearer token for a server and print it once, or revoke one.

    Args:
        folder: a server's folder
        name: of whoever will use it
        scopes: some of predict, feedback, read, admin, separated by commas
        rate: rows a second that it may send
        revoke: take the token of this name away
    """
    from everlearn.serve.auth import add_token, remove_token
    from everlearn.serve.start import SERVER, TOKENS

    if revoke:
        remove_token(Path(folder) / TOKENS, name)
        say(f"the token of {name} is revoked")
        return 0
    print(add_token(Path(folder) / TOKENS, name, [scope.strip() for scope in scopes.split(",")], rate))
    if not (Path(folder) / SERVER).exists():
        warnings.warn(f"{folder} holds no server yet; `everlearn serve WHAT --folder {folder}` begins one.", stacklevel=2)
    return 0

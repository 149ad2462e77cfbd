"""A server process without HTTP, told what to do by lines of JSON on its standard input; it answers each by one line.

python postgres_child.py URL SCHEMA FOLDER OPTIONS
{"do": "go", "numbers": [0, 1, ...]}  ->  [[number, seq asked, seq told], ...]      {"do": "status"}  ->  the status      ...
"""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TOP = Path(__file__).parents[2]
TRIES = 400  # of one request, a refusal apart from "try again"


def again(call):
    """What a future gives, asked again while the server says that it may help."""
    from everlearn.core.errors import ServeError

    for _ in range(TRIES):
        try:
            return call().result(20)[0]
        except ServeError as refusal:
            if refusal.retry_after is None:
                raise
            time.sleep(0.02)
    raise AssertionError("the server stayed away")


def go(engine, numbers, say=lambda line: None):
    """Ask and tell rows one by one: [number, seq asked, seq told, whether each was new]."""
    from everlearn.serve.records import Ask, Told

    from .engine_bench import row

    taken = []
    for number in numbers:
        x, y = row(number)
        asked = again(lambda number=number, x=x: engine.predict([Ask(f"r{number}", x)]))
        told = again(lambda number=number, y=y: engine.feedback([Told(f"r{number}", y)]))
        taken.append([number, asked.seq, told.seq, not asked.duplicate, not told.duplicate])
        say(taken[-1])
    return taken


def main(url, schema, folder, options):
    from everlearn.serve.local_engine import LocalEngine
    from everlearn.serve.options import Options
    from everlearn.serve.postgres import Postgres

    from .engine_bench import MODELS

    model, database = MODELS["classes"], Postgres(url, name=schema)
    engine = LocalEngine(model.make(), model.spec, folder, Options(**json.loads(options)), database=database)

    def say(value):
        print(json.dumps(value), flush=True)

    engine.wait_ready()
    say("ready")
    for line in sys.stdin:
        told = json.loads(line)
        do = told.pop("do")
        if do == "go":
            say(go(engine, told["numbers"], say))
        elif do == "status":
            say(engine.status())
        elif do == "close":
            engine.close()
            say("closed")
            return
        else:
            say(getattr(engine, do)(**told))


class Child:
    """Such a process, from outside."""

    def __init__(self, url, schema, folder, options):
        arguments = [sys.executable, "-m", "tests.serve.postgres_child", url, schema, str(folder), json.dumps(options)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP)

    def tell(self, do, **named):
        self.process.stdin.write(json.dumps({"do": do, **named}) + "\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, do, **named):
        self.tell(do, **named)
        return self.hear()

    def taken(self):
        """What a "go" took, whether the child lives to its end or not: [number, seq asked, seq told, new, new]."""
        rows = []
        while (line := self.hear()) is not None:
            if line and isinstance(line[0], list):
                break
            rows.append(line)
        return rows

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


def listen(child):
    """Gather what a child takes, from a thread: (thread, rows)."""
    rows = []
    thread = threading.Thread(target=lambda: rows.extend(child.taken()))
    thread.start()
    return thread, rows


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run as a program: a bandit behind real HTTP, whose log is in a folder.  python bandit_server.py FOLDER PORT"""

import sys
import time
from pathlib import Path

from everlearn.comparison.building import build_agent
from everlearn.serve.app import create_app
from everlearn.serve.http import serve
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options

TEXT = "bandit(actions=3, masked=True, period=20, memory=2, explore=squarecb(gamma=20.0), oracle=logistic())"
SPEC = InputSpec("actions", (5,), "float32")  # two columns, and behind them which of the three actions are on offer


def engine(folder, clock=time.time, **named):
    options = Options(**{"batch": 8, "every": 1, "wait": 0.01, "guard": False, **named})
    return LocalEngine(build_agent(TEXT, 0), SPEC, folder, options, clock=clock)


if __name__ == "__main__":
    serve(create_app(engine(Path(sys.argv[1]))), port=int(sys.argv[2]))

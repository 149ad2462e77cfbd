"""Run as a program: a small server over real uvicorn, whose log is in a folder.  python round_trip_server.py FOLDER PORT"""

import sys
from pathlib import Path

import torch

from everlearn.learners.replay import Replay
from everlearn.serve.app import create_app
from everlearn.serve.http import serve
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options

SPEC = InputSpec("classes", (300,), "float32", classes=("cat", "dog"))


def engine(folder):
    torch.manual_seed(0)
    return LocalEngine(Replay(torch.nn.Linear(300, 2), capacity=50), SPEC, folder, Options(batch=8, every=2, guard=False))


if __name__ == "__main__":
    serve(create_app(engine(Path(sys.argv[1]))), port=int(sys.argv[2]))

"""Where the cells of a comparison run: in this process, in a pool of processes, or on Ray. The records are the same.

Every engine is a function (jobs, workers, progress) -> iterator of records, in the order in which they finish. Worker processes
use one thread each, so that a figure does not depend on how many of them there are, and end when their parent does.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from queue import Empty
from typing import Any

import torch

from everlearn.comparison.job import Job, Progress, run_job
from everlearn.core.errors import ArgumentError, EverlearnError, StateError

Engine = Callable[[Sequence[Job], int, Progress], Iterator[dict[str, Any]]]
POLL_SECONDS = 0.2

_queue: Any = None  # in a worker: where progress goes


def engine_named(name: str) -> Engine:
    """'inline', 'process', 'ray' (a local Ray), or the address of a Ray cluster such as 'ray://host:10001' or 'auto'."""
    if name == "inline":
        return inline
    if name == "process":
        return process
    if name == "ray" or name == "auto" or "://" in name or name.rpartition(":")[2].isdigit():
        from everlearn.comparison.ray_engine import on_ray

        return on_ray(None if name == "ray" else name)
    raise ArgumentError(f"engine must be 'process', 'inline', 'ray' or the address of a Ray cluster, got {name!r}.")


def inline(jobs: Sequence[Job], workers: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """One job after the other in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in jobs:
            yield run_job(job, progress)
    finally:
        torch.set_num_threads(threads)


def process(jobs: Sequence[Job], workers: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """A pool of processes. Ctrl-C or an error ends them all; what they have written so far is resumed next time."""
    sendable(jobs)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_enter_worker, initargs=(queue, os.getpid())
    )
    try:
        with _main_left_alone(jobs):
            waiting: set[Future] = {pool.submit(_work, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            _drain(queue, progress)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise StateError(
            "a worker process ended without a word (killed, or out of memory). Run the same command again to go on from the "
            "newest snapshots, or use fewer --workers."
        ) from error
    finally:
        children = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.terminate()


def sendable(jobs: Sequence[Job]) -> None:
    """Refuse functions that another process cannot import: a lambda, a function inside a function."""
    for source in {id(value): value for job in jobs for value in (job.learner, job.stream)}.values():
        try:
            pickle.dumps(source)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ArgumentError(
                f"{getattr(source, '__qualname__', source)} cannot be sent to worker processes ({error}). Define it with `def` "
                "at the top of a module, or use engine='inline' to run everything in this process."
            ) from error


@contextmanager
def _main_left_alone(jobs: Sequence[Job]) -> Iterator[None]:
    """Keep new processes from importing the caller's main module, unless a job is a function of it.

    So a script needs no `if __name__ == "__main__"`, and a notebook or standard input works as well.
    """
    main = sys.modules["__main__"]
    if any(getattr(source, "__module__", "") == "__main__" for job in jobs for source in (job.learner, job.stream)):
        yield
        return
    held = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in held:
        setattr(main, name, None)
    try:
        yield
    finally:
        vars(main).update(held)


def _drain(queue: Any, progress: Progress) -> None:
    while True:
        try:
            progress(*queue.get_nowait())
        except Empty:
            return


def _enter_worker(queue: Any, parent: int) -> None:
    """Make a worker: one thread, deaf to Ctrl-C (the parent ends it), and gone when the parent is."""
    global _queue
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="everlearn")  # the parent has made the same stream, and said it
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _work(job: Job) -> dict[str, Any]:
    try:
        return run_job(job, lambda number, share: _queue.put((number, share)))
    except EverlearnError as error:
        error.add_note(f"in {job.label}, seed {job.seed}")
        raise

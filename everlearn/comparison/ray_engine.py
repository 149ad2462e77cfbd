"""The cells of a comparison on Ray, where one machine is too small. Ray is imported here and nowhere else in this room."""

from collections.abc import Iterator, Sequence
from typing import Any

from everlearn.comparison.job import Job, Progress, run_job
from everlearn.core.errors import EverlearnError, optional


def on_ray(address: str | None) -> Any:
    """An engine on the Ray cluster at an address, or on a local one of `workers` processors where address is None."""

    def engine(jobs: Sequence[Job], workers: int, progress: Progress) -> Iterator[dict[str, Any]]:
        ray = optional("ray", "ray", "--engine ray")
        started = not ray.is_initialized()
        if started:
            where = {"num_cpus": workers} if address is None else {"address": address}
            ray.init(**where, log_to_driver=False, include_dashboard=False, configure_logging=False)
        remote = ray.remote(num_cpus=1)(_work)
        try:
            waiting = {remote.remote(job): job for job in jobs}
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1)
                for reference in done:
                    job = waiting.pop(reference)
                    try:
                        record = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        cause = error.cause
                        raise (cause if isinstance(cause, EverlearnError) else error) from error
                    progress(job.number, 1.0)
                    yield record
        finally:
            if started:
                ray.shutdown()

    return engine


def _work(job: Job) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    return run_job(job)

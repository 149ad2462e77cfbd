"""What every test shares: one thread, the same draws in any order, no silent skips where EVERLEARN_NO_SKIPS is set."""

import os

import pytest
import torch

torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """Begin torch's global generator anew, so that what a test draws does not hang on the tests before it."""
    torch.manual_seed(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip into a failure where nothing may be skipped."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("EVERLEARN_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped where nothing may be skipped: {item.nodeid}: {call.excinfo.value if call.excinfo else ''}"
        )

"""What every test shares: one thread, and no silent skips where EVERLEARN_NO_SKIPS is set (continuous integration)."""

import os

import pytest
import torch

torch.set_num_threads(1)


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

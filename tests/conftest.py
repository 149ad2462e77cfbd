"""What every test shares: one thread, no silent skips where EVERLEARN_NO_SKIPS is set (continuous integration), claims one by one."""

import os

import pytest
import torch

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items):
    """Give all claims to one worker: each measures in two processes, and what waits for servers is run by the others meanwhile."""
    for item in items:
        if item.get_closest_marker("claim"):
            item.add_marker(pytest.mark.xdist_group("claims"))


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

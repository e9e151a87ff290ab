"""Settings shared by all tests: hypothesis draws the same examples on every machine in CI, and Ctrl-C is heard."""

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest

# A machine busy with other work draws slowly: that is no fault of a test.
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("dev", deadline=None, suppress_health_check=slow)
hypothesis.settings.register_profile("ci", deadline=None, suppress_health_check=slow, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, here and in processes that the test starts: a shell lets what it starts in the background with
    & ignore SIGINT, and a process that ignores it hands that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

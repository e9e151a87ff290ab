"""Settings shared by all tests: hypothesis draws the same examples on every machine in CI."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis

# A machine busy with other work draws slowly: that is no fault of a test.
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("dev", deadline=None, suppress_health_check=slow)
hypothesis.settings.register_profile("ci", deadline=None, suppress_health_check=slow, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

"""Settings shared by all tests: hypothesis draws the same examples on every machine in CI."""

import os

import hypothesis

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

"""The seed of all random draws of the tests."""

import os

SEED = int(os.environ.get("GPUARIA_TEST_SEED", "1"))  # of whatever a test draws

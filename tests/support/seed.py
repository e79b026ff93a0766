"""The seed of all random data in the tests."""

import os

SEED = int(os.environ.get("GPUARIA_TEST_SEED", "1"))

"""gpuaria compared with other downloaders: `make bench`, or python -m benchmarks --help."""

import sys
from pathlib import Path

# The lab and the stand-in hub are shared with the tests; they are in scripts/.
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

"""One JSON object per line on stdout, for programs."""

import json
from typing import Any

from gpuaria.text import harmless


def print_json(name: str, fields: dict[str, Any]) -> None:
    r"""Print one object. Control and direction characters, which could disturb a terminal, become \uXXXX."""
    line = json.dumps({"event": name, **fields}, ensure_ascii=False)
    print(harmless(line, lambda mark: json.dumps(mark)[1:-1]), flush=True)

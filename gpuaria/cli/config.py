"""`gpuaria config`."""

import sys

from gpuaria.cli import words as text
from gpuaria.cli.app import settings_from
from gpuaria.cli.render import Json


def command(*, as_json: bool) -> int:
    """Print key, value, layer and place of every setting."""
    rows = list(settings_from({}).rows())
    if as_json:
        settings = [dict(zip(("key", "value", "layer", "where"), row, strict=True)) for row in rows]
        Json(sys.stdout).write("report", {"settings": settings, "exit_code": 0})
    else:
        print(text.table([("key", "value", "from", "where"), *rows]))
    return 0

"""`gpuaria config`."""

import json

from gpuaria.cli import words as text
from gpuaria.cli.app import settings_from


def command(*, as_json: bool) -> int:
    """Print key, value, layer and place of every setting."""
    rows = list(settings_from({}).rows())
    if as_json:
        print(json.dumps([dict(zip(("key", "value", "layer", "where"), row, strict=True)) for row in rows], indent=1))
    else:
        print(text.table([("key", "value", "from", "where"), *rows]))
    return 0

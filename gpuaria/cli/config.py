"""`gpuaria config`."""

from gpuaria.cli import options
from gpuaria.cli.app import app


@app.command()
def config(as_json: options.JsonOption = False) -> int:
    """Print every setting, its value and its source."""
    from gpuaria.cli.output import figures
    from gpuaria.cli.output.json_lines import print_json

    rows = list(options.settings_from().rows())
    if as_json:
        settings = [dict(zip(("key", "value", "layer", "where"), row, strict=True)) for row in rows]
        print_json("report", {"settings": settings, "exit_code": 0})
    else:
        print(figures.table([("key", "value", "from", "where"), *rows]))
    return 0

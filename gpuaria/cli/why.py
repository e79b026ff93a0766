"""`gpuaria why`."""

from pathlib import Path
from typing import Annotated

import typer

from gpuaria.cli import options
from gpuaria.cli.app import app
from gpuaria.errors import SomeFilesFailed, WrongBytes


@app.command()
def why(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file that gpuaria downloaded, or its folder.")],
    as_json: options.JsonOption = False,
) -> int:
    """Show where a file came from and whether it has changed."""
    from gpuaria.audit.trace import runs, trace
    from gpuaria.cli.output import provenance
    from gpuaria.cli.output.json_lines import print_json
    from gpuaria.os_errors import explained
    from gpuaria.records import to_json

    place, records = Path(path).expanduser(), options.settings_from(offline=True).state_dir
    with explained(place):
        is_folder = place.is_dir()
    if is_folder:
        found = runs(place, records)
        if as_json:
            print_json("report", {"path": str(place), "runs": to_json(found), "exit_code": 0})
        else:
            print(provenance.folder_story(found))
        return 0
    one = trace(place, records)
    status = {"changed": WrongBytes.exit_code, "gone": SomeFilesFailed.exit_code if one.entry.good else 0}
    code = status.get(one.state, 0)
    if as_json:
        print_json("report", {**to_json(one), "exit_code": code})
    else:
        print(provenance.file_story(one))
    return code

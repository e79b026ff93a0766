"""Run a stand-in hub on one IP address: python -m lab.serve ADDRESS PORT FILE..."""

import sys
import tempfile
import time
from pathlib import Path

from standin import Hub, Repo

REPO = "lab/model"


def main(address: str, port: str, *files: str) -> None:
    """Serve the files as lab/model until the process is stopped; print the hub's URL once it is ready."""
    with tempfile.TemporaryDirectory(prefix="lab-hub-", dir=Path(files[0]).parent) as folder:
        content: dict[str, bytes | Path] = {Path(name).name: Path(name) for name in files}
        repo = Repo.build(REPO, content, folder=Path(folder))
        with Hub([repo], host=address, port=int(port)) as hub:
            print(hub.url, flush=True)
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])

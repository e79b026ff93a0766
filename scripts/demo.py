"""The main job for real, without internet: a hub, two mirrors, a model, `gpuaria fetch`, and the model read back.

python scripts/demo.py [--megabytes N] [--keep]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from standin import Hub, Repo, find_nginx, make_gpt2

REPO = "gpt2-medium"
PER_CONNECTION = 1_500_000  # bytes/s: as on a real hub, one connection is slow and many are not

READ_BACK = """
import json, struct, sys
from huggingface_hub import snapshot_download
folder = snapshot_download("gpt2-medium", local_files_only=True)
with open(folder + "/model.safetensors", "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
tensors = [name for name in header if name != "__metadata__"]
print(f"huggingface_hub, offline: {folder}")
print(f"model.safetensors has {len(tensors)} tensors, {tensors[0]} {header[tensors[0]]['shape']} first")
"""


def main() -> int:
    """Run the demo; return exit status 0 only if all steps succeed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--megabytes", type=int, default=300, help="size of the model")
    words.add_argument("--keep", action="store_true", help="keep the folder")
    options = words.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    work = Path(tempfile.mkdtemp(prefix="gpuaria-demo-"))
    try:
        return demo(work, options.megabytes)
    except KeyboardInterrupt:
        return 130
    finally:
        if options.keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def demo(work: Path, megabytes: int) -> int:
    """Create the model, start the servers, fetch it twice and read it back."""
    print(f"A model of {megabytes} MB, a hub and two mirrors on this machine:")
    repo = Repo.build(f"openai-community/{REPO}", make_gpt2(work / "made", megabytes), folder=work / "store")
    with (
        Hub([repo], name="hub", limit_rate=PER_CONNECTION) as hub,
        Hub([repo], name="east", limit_rate=PER_CONNECTION, host="127.0.0.2") as east,
        Hub([repo], name="west", limit_rate=PER_CONNECTION, host="127.0.0.3") as west,
    ):
        print(f"  hub {hub.url}, mirrors {east.url} and {west.url}; bytes by {'nginx' if find_nginx() else 'Python'}\n")
        environment = clean(work / "home", hub.url)
        mirrors = ["--mirror", east.url, "--mirror", west.url]
        if not show([sys.executable, "-m", "gpuaria", "fetch", "--repo", REPO, *mirrors], environment):
            return 1
        print("\nOnce more: nothing is fetched twice.")
        if not show([sys.executable, "-m", "gpuaria", "fetch", "--repo", REPO, *mirrors], environment):
            return 1
        leaked = [
            seen for server in (hub, east, west) for seen in server.cdn.requests if "authorization" in seen.headers
        ]
    print("\nThe servers are gone. What the framework sees:")
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    read = subprocess.run([sys.executable, "-c", READ_BACK], env=offline, check=False)
    verified = show([sys.executable, "-m", "gpuaria", "verify", REPO], offline)
    return 0 if read.returncode == 0 and verified and not leaked else 1


def clean(home: Path, endpoint: str) -> dict[str, str]:
    """Return an environment without the user's settings, cache and token."""
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "COLUMNS", "LINES") if name in os.environ}
    return {**kept, "HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONUTF8": "1"}


def show(argv: list[str], environment: dict[str, str]) -> bool:
    """Print a command and run it on this terminal; return True on success."""
    print(f"$ gpuaria {' '.join(json.dumps(word) if ' ' in word else word for word in argv[3:])}", flush=True)
    return subprocess.run(argv, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

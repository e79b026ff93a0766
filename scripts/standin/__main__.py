"""Serve a demo hub until interrupted: python -m standin --folder DIR [--megabytes N] [--port P]."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from . import Hub, Repo, make_gpt2


def main() -> None:
    """Build the demo repository in the folder, print the hub's URL on the first line and serve it."""
    parser = argparse.ArgumentParser(prog="standin", description="A stand-in Hugging Face Hub with a gpt2-medium.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the repository")
    parser.add_argument("--megabytes", type=int, default=100, help="size of model.safetensors in 10^6 bytes")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--limit-rate", type=int, default=0, help="bytes per second for each connection, 0: no limit")
    args = parser.parse_args()
    files = make_gpt2(args.folder / "source", args.megabytes)
    repo = Repo.build("openai-community/gpt2-medium", files, folder=args.folder / "store")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Hub([repo], port=args.port, limit_rate=args.limit_rate) as hub:
        print(hub.url, flush=True)
        print(f"  HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 hf download gpt2-medium   (Ctrl-C ends)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()

"""Entry point of `python -m gpuaria`."""

from gpuaria.cli.main import run

if __name__ == "__main__":
    run()

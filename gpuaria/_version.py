"""The version of gpuaria."""

__version__ = "0.1.0"

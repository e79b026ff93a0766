"""The tests of gpuaria."""

"""Mirrors: configuration, measurement, history, ranking, and their state during a run."""

"""The commands: a few lines each, and the only place that prints."""

"""Resolving names: the system's resolver, those of the settings, and the detection of false answers."""

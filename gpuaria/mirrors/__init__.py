"""Mirrors: which exist, how they are measured, what is remembered of them, and in which order they are used."""

"""Conversion between text and records: Metalink 4, aria2's input file, SHA256SUMS, the manifest. Pure.

Each module has `dump` and `load`. Both check file names; `dump` never writes a credential.
"""

"""Text <-> records, both ways and without effects: Metalink 4, aria2's input file, SHA256SUMS, the manifest itself.

Each module has `dump` and `load`. Names are checked on the way in and on the way out; no credential is ever written.
"""

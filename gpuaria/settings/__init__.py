"""Settings: built-in < site < user < project YAML < environment < flags.

`load` gives one frozen record that knows each value's layer.

secret.py   a credential that does not print
values.py   text -> one checked value, and back
folders.py  home, XDG and Hugging Face folders from the environment that was handed in
tokens.py   where the token of a host is
kinds.py    what a key accepts, in words and as a parser
table.py    every key, declared once; Settings
files.py    one YAML file -> entries with their lines
known.py    mirrors by name: shipped, or named in a file
editing.py  a mirror added to or removed from a file's text, nothing else of it changed
loading.py  the layers, laid over each other
"""

from gpuaria.settings.known import KnownMirror
from gpuaria.settings.loading import known_mirrors, load, user_file
from gpuaria.settings.secret import Secret
from gpuaria.settings.table import Key, Layer, Settings, SettingSource, describe
from gpuaria.settings.tokens import TokenSource

__all__ = [
    "Key",
    "KnownMirror",
    "Layer",
    "Secret",
    "SettingSource",
    "Settings",
    "TokenSource",
    "describe",
    "known_mirrors",
    "load",
    "user_file",
]

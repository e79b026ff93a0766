"""requirements-dev.lock and NOTICE against pyproject.toml and the metadata of the installed packages."""

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import notice
from tests.support.checkout import ROOT

LOCK = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUN = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]


def locked() -> dict[str, set[Version]]:
    """Return the versions of each locked package; a package may have one version for each Python version."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


@pytest.mark.parametrize("requirement", [*RUN, *EXTRAS], ids=lambda one: one.name)
def test_each_dependency_is_locked_within_its_bounds(requirement: Requirement) -> None:
    versions = locked().get(canonicalize_name(requirement.name), set())
    assert versions, "run make lock"
    for version in versions:
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is locked as {version}"


def test_each_locked_package_has_a_hash() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) >= len(locked()) > 40
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_index_and_no_url() -> None:
    assert not re.search(r"^\s*-", LOCK.replace("    --hash=", ""), re.MULTILINE)
    assert "://" not in LOCK


def test_each_dependency_has_a_lower_bound() -> None:
    bounds = {one.name: {part.operator for part in one.specifier} for one in [*RUN, *EXTRAS]}
    assert {name for name, operators in bounds.items() if not operators & {">=", "=="}} == set()


def installed(name: str) -> Version | None:
    """Return the version of an installed package, or None."""
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def applies(requirement: Requirement) -> bool:
    """Return whether a requirement is for this platform."""
    return requirement.marker is None or requirement.marker.evaluate()


def test_notice_lists_each_run_time_package() -> None:
    listed = notice.entries((ROOT / "NOTICE").read_text(encoding="utf-8"))
    assert {canonicalize_name(one.name) for one in RUN} <= set(listed)
    if all(installed(one.name) in locked()[canonicalize_name(one.name)] for one in RUN if applies(one)):
        assert set(notice.packages()) == set(listed), "run make notice"


def test_notice_has_the_licence_that_each_package_declares() -> None:
    """Compare only packages whose locked version is installed: a licence may change from one version to the next."""
    for name, licence in notice.entries((ROOT / "NOTICE").read_text(encoding="utf-8")).items():
        if installed(name) in locked().get(name, ()):
            assert licence == notice.licence(name) != "", f"{name}: run make notice"

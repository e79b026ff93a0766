"""`gpuaria mirrors add`, `remove` and `list`, and the shipped table of mirror names."""

from __future__ import annotations

import datetime
import json
import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuaria.errors import ConfigError
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, Mirror, RemoteFile, RepoRef
from gpuaria.settings import editing, known_mirrors, load
from gpuaria.settings.known import shipped, shipped_table
from gpuaria.settings.values import base_url, label
from gpuaria.sources import BUILT_IN
from gpuaria.sources import source as source_of
from tests.support.user import User

ANY = Path("config.yaml")
WITH_COMMENTS = """\
# my settings           (two spaces and more stay)
jobs:    8   # of 64

mirrors:      # in order of trust
    # the campus one
    - name:  'campus'   # ask hpc-support
      base:  http://hf.campus.example:8090
    - https://b.example   # second

    # a remark on nothing
# the end of the list

connections: "4"    # few
"""
ROW = "    - https://c.example\n"


@pytest.fixture
def config(user: User) -> Path:
    path = user.home / ".config/gpuaria/config.yaml"
    path.parent.mkdir(parents=True)
    user.env["GPUARIA_MIRRORS"] = ""  # only the file's values count
    return path


def names(path: Path) -> list[str]:
    """Return the mirrors that the settings read from a file."""
    return [row.name for row in load({}, {"HOME": "/h"}, Path("/w"), config_file=path, site=Path("/none")).mirrors]


# --- the user's file


def test_adding_and_removing_keep_every_other_byte(user: User, config: Path) -> None:
    config.write_text(WITH_COMMENTS)
    config.chmod(0o640)
    run = user.quick("mirrors", "add", "https://c.example").ok()
    assert run.out == f"added https://c.example to {config}\n"
    assert config.read_text() == WITH_COMMENTS.replace("# second\n", "# second\n" + ROW)
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert names(config) == ["campus", "b.example", "c.example"]
    user.quick("mirrors", "remove", "https://c.example").ok()
    assert config.read_text() == WITH_COMMENTS
    user.quick("mirrors", "remove", "campus").ok()
    campus = "    - name:  'campus'   # ask hpc-support\n      base:  http://hf.campus.example:8090\n"
    assert config.read_text() == WITH_COMMENTS.replace(campus, "")
    assert [path.name for path in config.parent.iterdir()] == ["config.yaml"]


def test_a_new_file_is_readable_by_its_owner_only(user: User, config: Path) -> None:
    user.quick("mirrors", "add", "hf-mirror").ok()
    assert config.read_text() == "mirrors:\n  - hf-mirror\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    user.quick("mirrors", "add", "campus", "https://HF.campus.example/hub/").ok()
    assert config.read_text().endswith("  - name: campus\n    base: https://hf.campus.example/hub\n")
    assert names(config) == ["hf-mirror", "campus"]


def test_a_link_stays_a_link_and_gpuaria_config_selects_the_file(user: User, config: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.yaml"
    real.write_text("# mine\n")
    config.symlink_to(real)
    user.quick("mirrors", "add", "sufy").ok()
    assert config.is_symlink()
    assert real.read_text() == "# mine\nmirrors:\n  - sufy\n"
    other = tmp_path / "other.yaml"
    other.touch()
    user.quick("mirrors", "add", "sufy", GPUARIA_CONFIG=str(other)).ok()
    assert names(other) == ["sufy"]


TEXTS = {
    "": "mirrors:\n  - x.y\n",
    "jobs: 4": "jobs: 4\nmirrors:\n  - x.y\n",
    "mirrors:\njobs: 4\n": "mirrors:\n  - x.y\njobs: 4\n",
    "mirrors: ~ # none yet\njobs: 4\n": "mirrors:  # none yet\n  - x.y\njobs: 4\n",
    "mirrors: []\n": "mirrors: [x.y]\n",
    "mirrors: none # mine\njobs: 4\n": "mirrors:  # mine\n  - x.y\njobs: 4\n",
    "mirrors: auto": "mirrors: \n  - x.y\n",
    "mirrors: [https://a, ] # c\n": "mirrors: [https://a, x.y, ] # c\n",
    "mirrors: [https://a, # one\n  {base: https://b}]\n": "mirrors: [https://a, # one\n  {base: https://b}, x.y]\n",
    "mirrors:\n- https://a": "mirrors:\n- https://a\n- x.y\n",
    "mirrors:\r\n- https://a # c\r\njobs: 4\r\n": "mirrors:\r\n- https://a # c\r\n- x.y\r\njobs: 4\r\n",
    "mirrors:\n- # c\n  base: https://a\n  notes: >\n    long\n    text\n\n# after\njobs: 4\n": (
        "mirrors:\n- # c\n  base: https://a\n  notes: >\n    long\n    text\n\n- x.y\n# after\njobs: 4\n"
    ),
}


@pytest.mark.parametrize(("before", "after"), TEXTS.items())
def test_a_row_is_added_in_the_style_of_the_file(before: str, after: str) -> None:
    assert editing.with_mirror(before, "x.y", "", ANY) == after


REMOVED = {
    "mirrors: [https://a, b, https://c]\n": "mirrors: [https://a, https://c]\n",
    "mirrors: [https://a, b] # x\n": "mirrors: [https://a] # x\n",
    "mirrors: [b]\n": "mirrors: []\n",
    "mirrors:\n- b\n": "mirrors:\n",
    "mirrors:\n# one\n- b # two\n# three\n- https://c\n": "mirrors:\n# one\n# three\n- https://c\n",
    "mirrors:\n- {name: b, base: https://x}\n- https://c\n": "mirrors:\n- https://c\n",
    "mirrors:\n- https://c\n": "mirrors:\n- https://c\n",
    "jobs: 4\n": "jobs: 4\n",
}


@pytest.mark.parametrize(("before", "after"), REMOVED.items())
def test_only_the_named_row_is_removed(before: str, after: str) -> None:
    assert editing.without_mirror(before, {"b"}, ANY) == after


comments = st.sampled_from(["", " # c", "   # 'd' - [e]: {"])
lines = st.sampled_from(["", "# alone", "  # indented - b"])
row_names = st.sampled_from(["alpha", "be ta", "ga-mma", "d: e", "yes", "7", "ü", "null", "a,b]", "#x"])


@given(
    st.lists(st.tuples(row_names, comments, lines), max_size=4, unique_by=lambda row: row[0]),
    st.sampled_from(["", "  ", "      "]),
    row_names,
    st.sampled_from(["\n", "\r\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_added_and_removed_in_any_style_of_file(
    rows: list[tuple[str, str, str]], indent: str, name: str, newline: str
) -> None:
    text = f"jobs:   3 # x{newline}mirrors:{newline}"
    for number, (row, comment, after) in enumerate(rows):
        text += f"{indent}-   name: {json.dumps(row)}{comment}{newline}{indent}    base: https://m{number}{newline}"
        text += after + newline
    text += f"# last{newline}timeout:   7{newline}"
    old = yaml.safe_load(text)
    new = editing.with_mirror(text, name, "https://new.example", ANY)
    expected = [*(old["mirrors"] or []), {"name": name, "base": "https://new.example"}]
    assert yaml.safe_load(new) == {**old, "mirrors": expected}
    assert editing.without_mirror(new, {"https://new.example"}, ANY) == text
    kept = [line for line in new.splitlines() if line in text.splitlines()]
    assert kept == text.splitlines()


def test_an_edit_that_would_make_the_file_invalid_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("jobs: 4\n")

    def refuse(temp: Path) -> None:
        assert temp.read_text() == "jobs: 5\n"
        raise ConfigError(f"{temp}:1: no", f"Correct {temp}.")

    with pytest.raises(ConfigError) as caught:
        editing.rewrite(path, lambda old: old.replace("4", "5"), refuse)
    assert (caught.value.message, caught.value.hint) == (f"{path}:1: no", f"Correct {path}.")
    assert path.read_text() == "jobs: 4\n"
    assert os.listdir(tmp_path) == ["c.yaml"]


BAD = [
    (("add",), 2, "add takes"),
    (("add", "nobody"), 2, "nobody"),
    (("add", "https://u:p@x"), 2, "mirror URL"),
    (("add", "x", "ftp://x"), 2, "mirror URL"),
    (("add", "", "https://x"), 2, "name"),
    (("add", "https://a.example/"), 2, "already"),
    (("add", "a.example", "https://b"), 2, "already"),
    (("remove",), 2, "remove takes"),
    (("remove", "nobody"), 2, "nobody"),
    (("remove", "hf-mirror"), 2, "not used"),
    (("list", "x"), 2, "list takes"),
]


@pytest.mark.parametrize(("words", "status", "said"), BAD, ids=[" ".join(words) for words, _, _ in BAD])
def test_bad_input_changes_nothing(user: User, config: Path, words: tuple[str, ...], status: int, said: str) -> None:
    text = "mirrors: [https://a.example]\n"
    config.write_text(text)
    user.quick("mirrors", *words).refused(status, said)
    assert config.read_text() == text


def test_an_invalid_or_forbidden_file_is_rejected(user: User, config: Path) -> None:
    config.write_text("mirrors: [\n")
    user.quick("mirrors", "add", "sufy").refused(10, str(config))
    config.write_text("{mirrors: []}\n")
    user.quick("mirrors", "add", "sufy").refused(10, "braces")
    config.unlink()
    config.mkdir()
    assert user.quick("mirrors", "add", "sufy").status in (8, 10)


def test_settings_that_override_the_user_file_are_reported(user: User, config: Path) -> None:
    run = user.quick("mirrors", "add", "sufy", GPUARIA_MIRRORS="https://a").ok()
    assert "GPUARIA_MIRRORS overrides the mirrors in this file" in run.err
    assert names(config) == ["sufy"]


def test_list_shows_the_source_of_each_mirror(user: User, config: Path) -> None:
    config.write_text("mirrors:\n  - sufy\n  - {name: hf-mirror, base: https://my.example, location: here}\n")
    rows = {line.split()[0]: line for line in user.quick("mirrors", "list").ok().out.splitlines()[1:]}
    assert rows["sufy"].split()[-3:] == ["shipped", "yes", "never"]
    assert f"user ({config}:1)" in rows["hf-mirror"]
    assert "https://my.example" in rows["hf-mirror"]
    (report,) = user.quick("mirrors", "list", "--json", "--mirror", "https://f.example").ok().events
    given = {row["name"]: (row["layer"], row["used"]) for row in report["mirrors"]}
    assert given == {"hf-mirror": ("user", False), "f.example": ("flag", True), "sufy": ("shipped", False)}


def test_list_shows_which_mirrors_auto_may_use(user: User, config: Path) -> None:
    config.write_text("known_mirrors: [hf-mirror, {name: campus, base: https://c.example}]\n")
    rows = {line.split()[0]: line.split()[-2] for line in user.quick("mirrors", "list").ok().out.splitlines()[1:]}
    assert rows == {"hf-mirror": "auto", "campus": "auto", "sufy": "no"}
    (report,) = user.quick("mirrors", "list", "--json", "--mirror", "none").ok().events
    assert {(row["used"], row["joins"]) for row in report["mirrors"]} == {(False, False)}


# --- names


def test_the_shipped_table_is_well_formed() -> None:
    assert set(shipped_table()) <= set(BUILT_IN)
    for source, rows in shipped_table().items():
        assert set(rows) == {"template", "mirrors"}
        assert shipped(source)
        for row in rows["mirrors"]:
            assert set(row) == {"name", "base", "location", "notes", "checked"}
            assert (base_url(row["base"]), label(row["name"]), label(row["location"])) == (
                row["base"],
                row["name"],
                row["location"],
            )
            assert row["base"].startswith("https://")
            assert row["checked"] == "never" or datetime.date.fromisoformat(row["checked"])
            assert row["notes"].endswith(".")


@pytest.mark.parametrize(("kind", "prefix"), [("model", ""), ("dataset", "datasets/"), ("space", "spaces/")])
def test_the_template_matches_the_source(kind: str, prefix: str) -> None:
    file = RemoteFile(SafePath("a/b.bin"), 1, None)
    ref = RepoRef("hf", kind, "o/n")
    manifest = Manifest(ref, "o/n", "c" * 40, "https://hub", "origin", (file,))
    made = shipped_table()["hf"]["template"].format(
        base="https://m", prefix=prefix, repo="o/n", commit="c" * 40, path="a/b.bin"
    )
    assert source_of("hf").file_url(Mirror("m", "https://m"), manifest, file) == made


def mirrors(flag: str = "", site: str = "", user: str = "", project: str = "", *, root: Path) -> tuple[Mirror, ...]:
    """Return the active mirrors if these layers set `mirrors: …`."""
    home, here = root / "home", root / "here"
    (home / ".config/gpuaria").mkdir(parents=True)
    here.mkdir()
    for path, rows in (
        (root / "site", site),
        (home / ".config/gpuaria/config.yaml", user),
        (here / "gpuaria.yaml", project),
    ):
        if rows:
            path.write_text(f"mirrors: {rows}\n")
    environ = {"HOME": str(home), "XDG_CONFIG_DIRS": str(root / "none")}
    flags = {"mirrors": [flag]} if flag else {}
    return load(flags, environ, here, site=root / "site").mirrors


OWN = "[{name: hf-mirror, base: https://own.example}]"
SHIPPED = Mirror("hf-mirror", "https://hf-mirror.com", location="mainland China")
NAMES = [
    ({"flag": "hf-mirror"}, SHIPPED),
    ({"user": "[hf-mirror]"}, SHIPPED),
    (
        {"user": "[{name: hf-mirror, location: abroad}]"},
        Mirror("hf-mirror", "https://hf-mirror.com", location="abroad"),
    ),
    ({"user": OWN, "flag": "hf-mirror"}, Mirror("hf-mirror", "https://own.example")),
    ({"site": OWN, "user": "[hf-mirror]"}, Mirror("hf-mirror", "https://own.example")),
    ({"site": "[{name: campus, base: https://c.example}]", "flag": "campus"}, Mirror("campus", "https://c.example")),
    ({"project": OWN, "flag": "hf-mirror"}, SHIPPED),  # a checked-out folder cannot redefine a name
    ({"project": OWN}, Mirror("hf-mirror", "https://own.example")),
]


@pytest.mark.parametrize(("layers", "expected"), NAMES)
def test_a_name_is_replaced_by_its_mirror(tmp_path: Path, layers: dict[str, str], expected: Mirror) -> None:
    assert mirrors(**layers, root=tmp_path) == (expected,)


def test_mirror_names_from_the_environment(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "GPUARIA_MIRRORS": "hf-mirror, https://a"}
    found = load({}, environ, tmp_path, site=tmp_path / "none").mirrors
    assert found == (SHIPPED, Mirror("a", "https://a"))
    rows = known_mirrors({}, environ, tmp_path, site=tmp_path / "none")
    assert [(row.name, row.layer, row.used) for row in rows] == [
        ("a", "environment", True),
        ("hf-mirror", "shipped", True),
        ("sufy", "shipped", False),
    ]

"""Trust in listings while the origin is down."""

from collections.abc import Callable
from pathlib import Path

import pytest

from standin import Repo
from tests.support.user import Serve, User

FILES: dict[str, bytes | Path] = {"config.json": b'{"a": 1}', "notes.txt": b"first\n", "weights.bin": b"w" * 4000}
GONE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Repo]:
    """Build repos of one name; the same content gives the same commit."""

    def make(folder: str, **changed: bytes) -> Repo:
        return Repo.build("org/held", {**FILES, **changed}, folder=tmp_path / folder)

    return make


@pytest.mark.fault(
    "hub: down, and two mirrors agree on the listing",
    where="server",
    does="Uses their listing, and reports that.",
    sees="the mirrors, and `quorum` in the report",
    status=0,
)
def test_two_mirrors_that_agree_are_a_quorum(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    one = serve(made("one"), name="one", host="127.0.0.2")
    two = serve(made("two"), name="two", host="127.0.0.3")
    user.env["HF_ENDPOINT"] = GONE
    done = user.quick("fetch", "org/held", "--to", "got", "--mirror", one.url, "--mirror", two.url, "--json").ok()
    assert done.report["trust"] == "quorum"
    assert {one.url[7:], two.url[7:]} == set(done.report["vouched_by"].split(" and "))
    assert (user.home / "got/notes.txt").read_bytes() == b"first\n"


def test_two_names_of_one_host_count_once(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    one, two = serve(made("one"), name="one"), serve(made("two"), name="two")
    user.env["HF_ENDPOINT"] = GONE
    done = user.quick("fetch", "org/held", "--to", "got", "--mirror", one.url, "--mirror", two.url)
    assert done.status == 7
    assert "disagree" in done.err or "agree" in done.err


@pytest.mark.fault(
    "hub: down, and two mirrors disagree",
    where="server",
    does="Stops.",
    sees="the commit that each of them reports",
    status=7,
)
def test_mirrors_that_disagree_are_not_trusted(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    one = serve(made("one"), name="one", host="127.0.0.2")
    two = serve(made("two", **{"notes.txt": b"other\n"}), name="two", host="127.0.0.3")
    user.env["HF_ENDPOINT"] = GONE
    words = ("fetch", "org/held", "--to", "got", "--mirror", one.url, "--mirror", two.url)
    done = user.quick(*words)
    assert done.status == 7
    assert "disagree" in done.err
    assert not (user.home / "got/notes.txt").exists()
    user.env["GPUARIA_TRUST"] = "any"
    assert "one unverified mirror" in user.quick(*words).ok().err


def test_a_single_mirror_is_used_with_a_warning(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    one = serve(made("one"))
    user.env["HF_ENDPOINT"] = GONE
    done = user.quick("fetch", "org/held", "--to", "got", "--mirror", one.url, "--json").ok()
    assert done.report["trust"] == "mirror only"
    assert any("one unverified mirror" in event.get("text", "") for event in done.events)
    verified = user.quick("verify", "got").ok()
    assert "mirror only" in verified.out


def test_the_policy_may_require_the_origin(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    one = serve(made("one"))
    user.env |= {"HF_ENDPOINT": GONE, "GPUARIA_TRUST": "origin"}
    assert user.quick("fetch", "org/held", "--to", "got", "--mirror", one.url).status == 7


def test_a_listing_from_mirrors_is_requested_again_once_the_origin_is_back(
    user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    one, origin = serve(made("one"), name="one"), serve(made("two"), name="origin")
    user.env["HF_ENDPOINT"] = GONE
    words = ("fetch", "org/held", "--to", "got", "--mirror", one.url, "--json")
    assert user.quick(*words).ok().report["trust"] == "mirror only"
    user.env["HF_ENDPOINT"] = origin.url
    assert user.quick(*words).ok().report["trust"] == "origin"


def test_an_error_response_of_the_origin_counts(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    mirror = serve(made("one"))
    empty = serve(Repo.build("org/other", {"a": b"a"}, folder=user.home.parent / "other"), name="empty")
    user.env["HF_ENDPOINT"] = empty.url
    assert user.quick("fetch", "org/held", "--mirror", mirror.url).status == 5


@pytest.mark.fault(
    "hub: down, and all requested files are on disk",
    where="server",
    does="Uses the file list that the hub returned last.",
    sees="that the hub is down, the commit, and `first seen` in the report",
    status=0,
)
@pytest.mark.parametrize("to", [(), ("--to", "got")])
def test_complete_files_need_no_hub(
    to: tuple[str, ...], user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    hub = serve(made("one"))
    path = user.quick("fetch", "org/held", *to).ok().path
    hub.close()
    done = user.quick("fetch", "org/held", *to, "--json").ok()
    assert (done.report["trust"], done.report["bytes_fetched"]) == ("first seen", 0)
    warned = next(event["text"] for event in done.events if event["event"] == "warned")
    assert path.name in ("got", done.report["commit"])
    assert done.report["commit"][:12] in warned
    user.quick("fetch", "org/held@v2", *to).refused(7, "cannot connect")
    user.quick("fetch", "org/other", *to).refused(7, "cannot connect")


@pytest.mark.fault(
    "hub: goes down before all files are on disk, and one mirror remains",
    where="server",
    does="Continues with the hub's listing and the mirror's bytes.",
    sees="that the hub is down, the commit, and `first seen` in the report",
    status=0,
)
@pytest.mark.parametrize("policy", ["origin", "quorum"])
def test_a_mirror_completes_the_hubs_saved_listing(
    policy: str, user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    hub, mirror = serve(made("one")), serve(made("two"), host="127.0.0.2")
    user.quick("fetch", "org/held", "config.json").ok()
    hub.close()
    user.env["GPUARIA_TRUST"] = policy
    done = user.quick("fetch", "org/held", "--mirror", mirror.url, "--json").ok()
    assert (done.report["trust"], done.report["vouched_by"]) == ("first seen", user.env["HF_ENDPOINT"])
    assert done.report["verdicts"] == {"ok": 3}


@pytest.mark.parametrize("policy", ["origin", "quorum"])
@pytest.mark.parametrize("to", [(), ("--to", "got")])
def test_a_saved_listing_stays_usable(
    to: tuple[str, ...], policy: str, user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    hub, mirror = serve(made("one")), serve(made("two"), host="127.0.0.2")
    (user.home / "lock.json").write_text(user.quick("resolve", "org/held", "--format", "manifest").ok().out)
    user.quick("fetch", "org/held", "config.json", *to).ok()
    hub.close()
    user.env["GPUARIA_TRUST"] = policy
    with_mirror = ("fetch", "org/held", "--mirror", mirror.url, "--json", *to)
    assert user.quick(*with_mirror, "notes.txt").ok().report["trust"] == "first seen"
    assert user.quick(*with_mirror).ok().report["trust"] == "first seen", "the same listing a second time"
    alone = ("fetch", "org/held", "--patience", "1s", "--json", *to)
    for between in (("org/held", "--offline"), ("--lock", "lock.json"), ("org/held", "--offline")):
        assert user.quick(*alone).ok().report["trust"] == "first seen"
        assert user.quick("fetch", *between, *to, "--json").ok().report["verdicts"] == {"ok": 3}
    assert user.quick(*alone).ok().report["vouched_by"] == user.env["HF_ENDPOINT"]


def test_agreeing_mirrors_do_not_replace_a_saved_listing_of_the_origin(
    user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    hub = serve(made("one"))
    one, two = (serve(made(f"at {host}"), host=host, name=host) for host in ("127.0.0.2", "127.0.0.3"))
    user.quick("fetch", "org/held", "config.json").ok()
    hub.close()
    agreed = user.quick("fetch", "org/held", "--mirror", one.url, "--mirror", two.url, "--json").ok()
    assert agreed.report["trust"] == "quorum"
    one.close()
    two.close()
    assert user.quick("fetch", "org/held", "--patience", "1s", "--json").ok().report["trust"] == "first seen"


def test_a_saved_first_seen_listing_of_an_older_gpuaria_is_used(
    user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    hub = serve(made("one"))
    user.quick("fetch", "org/held", "--to", "got").ok()
    saved = next(path for path in (user.home / "got/.cache").rglob("*.json") if '"vouched_by"' in path.read_text())
    text = saved.read_text()
    assert '"origin"' in text
    saved.write_text(text.replace('"origin"', '"first seen"'))
    hub.close()
    done = user.quick("fetch", "org/held", "--to", "got", "--patience", "1s", "--json").ok()
    assert done.report["trust"] == "first seen"


def test_a_saved_listing_of_another_endpoint_is_not_used(
    user: "User", serve: "Serve", made: Callable[..., Repo]
) -> None:
    serve(made("one"))
    user.quick("fetch", "org/held").ok()
    user.env["HF_ENDPOINT"] = GONE
    user.quick("fetch", "org/held").refused(7, "cannot connect")


def test_without_any_mirror_the_run_waits_for_the_hub(user: "User", serve: "Serve", made: Callable[..., Repo]) -> None:
    hub = serve(made("one"))
    user.quick("fetch", "org/held", "config.json").ok()
    hub.close()
    done = user.quick("fetch", "org/held", "--patience", "1s")
    assert done.status == 7
    assert "cannot connect" in done.err

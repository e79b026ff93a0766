"""gpuaria.plan: decisions and their reasons, and invariants of every plan."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria import plan as planning
from gpuaria.hashing import hash_bytes, lfs_pointer_oid
from gpuaria.paths import SafePath
from gpuaria.plan import PlanRules
from gpuaria.records import Digest, DownloadPlan, LocalState, Manifest, Mirror, RemoteFile, RepoRef, Step, to_json

SMALL, BIG, MIB = 1000, 50_000_000, 1 << 20
RULES = PlanRules()
MIRRORS = tuple(Mirror(name, f"https://{name}") for name in ("first", "second", "third"))


def file(path: str, size: int = SMALL, content: str | None = None, *, digest: bool = True) -> RemoteFile:
    """Return a file whose bytes are identified by `content` (by default its path)."""
    hex_ = hash_bytes((content if content is not None else path).encode(), "sha256")
    return RemoteFile(SafePath(path), size, Digest("sha256", hex_) if digest else None, lfs_pointer_oid(hex_, size))


def empty(path: str, algorithm: str = "git-sha1") -> RemoteFile:
    return RemoteFile(SafePath(path), 0, Digest(algorithm, hash_bytes(b"", algorithm)))


def manifest(*files: RemoteFile) -> Manifest:
    return Manifest(RepoRef("hf", "model", "org/name"), "org/name", "0" * 40, "https://hub", "origin", files)


def make(
    *files: RemoteFile,
    states: dict[str, LocalState] | None = None,
    mirrors: tuple[Mirror, ...] = MIRRORS[:1],
    rules: PlanRules = RULES,
) -> DownloadPlan:
    known = {SafePath(path): state for path, state in (states or {}).items()}
    return planning.make(manifest(*files), known, mirrors, rules)


def only(plan: DownloadPlan) -> Step:
    (step,) = plan.steps
    return step


# --- one file -----------------------------------------------------------------------------------------------------

HERE = LocalState(size=BIG)
ROWS = [
    ("absent", LocalState(), False, "download", "not on disk"),
    ("begun", LocalState(partial=77), False, "download", "77 bytes on disk"),
    ("here", HERE, False, "verify", "on disk, not yet verified by gpuaria"),
    ("here and named", replace(HERE, named=True), False, "verify", "on disk, not yet verified by gpuaria"),
    ("proven", replace(HERE, proven=True), False, "name", "its bytes are on disk, verified before"),
    ("proven and named", replace(HERE, proven=True, named=True), False, "skip", "verified before, unchanged since"),
    (
        "other size",
        replace(HERE, size=5, proven=True, named=True),
        False,
        "replace",
        "the local file has 5 bytes, not 50000000",
    ),
    ("nothing of it", replace(HERE, size=0), False, "replace", "the local file has 0 bytes, not 50000000"),
    ("forced", replace(HERE, proven=True, named=True), True, "replace", "requested with --force"),
    ("forced, absent", LocalState(), True, "download", "not on disk"),
]


@pytest.mark.parametrize(("state", "force", "action", "reason"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
@pytest.mark.parametrize("size", [SMALL, BIG])
def test_the_action_for_one_file(state: LocalState, force: bool, action: str, reason: str, size: int) -> None:
    if state.size == BIG:
        state = replace(state, size=size)
    step = only(make(file("w", size), states={"w": state}, rules=PlanRules(force=force)))
    assert (step.action, step.reason) == (action, reason.replace("50000000", str(size)))
    carrier = ("http" if size == SMALL else "aria2") if action in ("download", "replace") else ""
    assert step.carrier == carrier
    assert step.fetches == bool(carrier)
    assert step.mirrors == (MIRRORS[:1] if carrier else ())


@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
def test_an_empty_file_is_created_without_a_download(algorithm: str) -> None:
    step = only(make(empty("e", algorithm)))
    assert (step.action, step.reason, step.carrier) == ("create", "it is empty", "")
    assert only(make(empty("e"), states={"e": LocalState(size=3)})).action == "create"
    assert only(make(empty("e"), states={"e": LocalState(size=0, proven=True, named=True)})).action == "skip"


def test_an_empty_file_with_another_digest_is_downloaded_to_show_the_contradiction() -> None:
    assert only(make(file("e", 0))).action == "download"
    assert only(make(file("e", 0, digest=False))).action == "download"


@pytest.mark.parametrize(
    ("size", "carrier"), [(RULES.small_file - 1, "http"), (RULES.small_file, "aria2"), (RULES.small_file + 1, "aria2")]
)
def test_small_and_large_files(size: int, carrier: str) -> None:
    assert only(make(file("w", size))).carrier == carrier


def test_a_wrong_local_file_is_downloaded_again() -> None:
    step = only(make(file("w", BIG), states={"w": HERE}))
    again = planning.replacement_step(step, MIRRORS, RULES)
    assert (again.action, again.carrier, again.mirrors, again.file) == ("replace", "aria2", MIRRORS, step.file)
    assert (
        planning.replacement_step(only(make(empty("e"), states={"e": LocalState(size=0)})), MIRRORS, RULES).action
        == "create"
    )


# --- several files ------------------------------------------------------------------------------------------------


def test_the_largest_file_starts_first_and_equal_sizes_are_sorted_by_name() -> None:
    plan = make(file("b", BIG), file("tiny", 1), file("a", BIG), file("huge", 9 * BIG), empty("e"))
    assert [str(step.file.path) for step in plan.steps] == ["huge", "a", "b", "tiny", "e"]


def test_identical_bytes_are_downloaded_once() -> None:
    plan = make(file("b", BIG, "same"), file("a", BIG, "same"), file("c", BIG, "other"), file("d", BIG + 1, "same"))
    actions = {str(step.file.path): (step.action, step.reason) for step in plan.steps}
    assert actions["a"][0] == actions["c"][0] == actions["d"][0] == "download"
    assert actions["b"] == ("copy", "the same bytes as a")
    assert [step.owner for step in plan.steps if step.action == "copy"] == ["a"]
    assert plan.fetch_bytes == 3 * BIG + 1


def test_files_without_a_digest_are_never_identical() -> None:
    plan = make(file("a", BIG, digest=False), file("b", BIG, digest=False))
    assert [step.action for step in plan.steps] == ["download", "download"]


def test_a_missing_file_is_copied_from_an_identical_local_one() -> None:
    here = LocalState(size=BIG, proven=True, named=True)
    plan = make(file("a", BIG, "same"), file("b", BIG, "same"), states={"a": here})
    assert [step.action for step in plan.steps] == ["skip", "copy"]
    assert plan.fetch_bytes == 0


def test_a_missing_file_is_copied_from_any_name_with_the_same_digest() -> None:
    here = LocalState(size=BIG, proven=True, named=True)
    plan = make(file("a", BIG, "same"), file("b", BIG, "same"), states={"b": here})
    assert {str(step.file.path): step.action for step in plan.steps} == {"a": "copy", "b": "skip"}
    assert plan.fetch_bytes == 0


# --- connections and mirrors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "servers", "rules", "connections"),
    [
        (100 << 30, 1, RULES, 16),
        (100 << 30, 3, RULES, 48),
        (100 << 30, 0, RULES, 16),
        (100 << 30, 2, PlanRules(connections=4), 8),
        (8 * MIB, 1, RULES, 8),
        (8 * MIB + 1, 1, RULES, 9),
        (8 * MIB, 1, PlanRules(min_split=4 * MIB), 2),
        (1, 1, RULES, 1),
        (0, 1, RULES, 1),
    ],
)
def test_the_number_of_connections(size: int, servers: int, rules: PlanRules, connections: int) -> None:
    mirrors = tuple(Mirror(f"m{n}", f"https://m{n}") for n in range(servers))
    assert only(make(file("w", size), mirrors=mirrors, rules=replace(rules, small_file=0))).connections == connections


def test_a_weak_mirror_gets_fewer_connections() -> None:
    mirrors = [Mirror(name, f"https://{name}") for name in ("far", "near", "new")]
    plan = planning.make(manifest(file("w", 100 << 30)), {}, mirrors, RULES, {"far": 16, "near": 3})
    step = only(plan)
    assert (step.counts, step.connections) == ({"near": 3}, 16 + 3 + 16)


def test_a_large_file_uses_every_mirror_best_first() -> None:
    step = only(make(file("w", 100 << 30), mirrors=MIRRORS))
    assert (step.mirrors, step.connections) == (MIRRORS, 48)


def test_small_files_spread_over_the_mirrors_and_can_use_all() -> None:
    plan = make(*(file(f"f{n}") for n in range(600)), mirrors=MIRRORS)
    firsts = Counter(step.mirrors[0] for step in plan.steps)
    assert set(firsts) == set(MIRRORS)
    assert min(firsts.values()) > 150
    assert all(set(step.mirrors) == set(MIRRORS) for step in plan.steps)
    assert all(step.connections == 1 for step in plan.steps)


def test_only_the_seed_rotates_the_mirrors() -> None:
    files = [file(f"f{n}") for n in range(50)]
    plans = [make(*files, mirrors=MIRRORS, rules=PlanRules(seed=seed)) for seed in ("", "", "x")]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


# --- sums ---------------------------------------------------------------------------------------------------------


def test_bytes_to_download_reuse_and_reserve() -> None:
    here = {"skip": LocalState(SMALL, True, True), "name": LocalState(SMALL, True), "verify": LocalState(SMALL)}
    files = [file(path) for path in here]
    files += [file("new"), file("begun", BIG), file("wrong", BIG), file("twin", content="new"), empty("e")]
    states = here | {"begun": LocalState(partial=BIG - 5), "wrong": LocalState(size=1)}
    plan = make(*files, states=states)
    assert plan.reuse_bytes == 3 * SMALL
    assert plan.fetch_bytes == SMALL + 2 * BIG
    assert plan.space == SMALL + 5 + BIG
    assert make(*files, states=states, rules=PlanRules(copies=True)).space == plan.space + SMALL


def test_more_staged_bytes_than_the_file_size_save_only_the_file_size() -> None:
    plan = make(file("a", BIG), file("b", BIG), states={"a": LocalState(partial=9 * BIG)})
    assert plan.space == BIG


# --- every plan ---------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([0, 1, SMALL, RULES.small_file - 1, RULES.small_file, BIG])
FILES = st.lists(
    st.builds(
        lambda path, size, content, kind: (
            empty(path) if kind == "empty" else file(path, size, content, digest=kind != "unknown")
        ),
        st.text("abc/é", min_size=1, max_size=4),
        SIZES,
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from(["known", "known", "unknown", "empty"]),
    ),
    max_size=12,
    unique_by=lambda each: each.path,
)
STATES = st.dictionaries(
    st.text("abc/é", min_size=1, max_size=4).map(SafePath),
    st.builds(LocalState, st.none() | SIZES, st.booleans(), st.booleans(), st.integers(0, 2 * BIG)),
    max_size=8,
)
RULE = st.builds(PlanRules, force=st.booleans(), copies=st.booleans(), seed=st.text(max_size=3))
NAMES = st.lists(st.builds(Mirror, st.sampled_from("mnop"), st.just("https://m")), min_size=1, unique=True)


@given(FILES, STATES, NAMES, RULE, st.randoms(use_true_random=False))
def test_input_order_does_not_change_the_plan(
    files: list[RemoteFile], states: dict[SafePath, LocalState], mirrors: list[Mirror], rules: PlanRules, random: object
) -> None:
    def text(order: list[RemoteFile], known: dict[SafePath, LocalState]) -> bytes:
        return json.dumps(to_json(planning.make(manifest(*order), known, mirrors, rules)), ensure_ascii=True).encode()

    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    turned = dict(reversed(states.items()))
    assert text(files, states) == text(shuffled, turned)


@given(FILES, STATES, NAMES, RULE)
def test_invariants_of_every_plan(
    files: list[RemoteFile], states: dict[SafePath, LocalState], mirrors: list[Mirror], rules: PlanRules
) -> None:
    plan = planning.make(manifest(*files), states, mirrors, rules)
    assert sorted(step.file.path for step in plan.steps) == sorted(each.path for each in files)
    assert plan.fetch_bytes == sum(step.file.size for step in plan.steps if step.fetches)
    assert plan.space >= 0
    assert plan.reuse_bytes + plan.fetch_bytes <= sum(each.size for each in files)
    brought: set[tuple[str, int]] = set()
    for step in plan.steps:
        state = states.get(step.file.path, LocalState())
        identity = (step.file.digest.hex, step.file.size) if step.file.digest else None
        assert step.fetches == (step.action in ("download", "replace"))
        assert step.reason
        assert set(step.mirrors) == (set(mirrors) if step.fetches else set())
        assert len(step.mirrors) == len(set(step.mirrors))
        assert step.connections >= 1
        if step.action == "skip":
            assert state.proven
            assert state.named
            assert not rules.force
        if step.action in ("skip", "name", "verify"):
            assert state.size == step.file.size
        if step.action == "copy":
            assert identity in brought
        elif identity:
            assert not (step.fetches and identity in brought)
            brought.add(identity)

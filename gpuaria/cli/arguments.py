"""Parsing of command-line words that several commands share."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuaria.errors import UsageError

if TYPE_CHECKING:
    from gpuaria import records


def split_patterns(words: Sequence[str]) -> list[str]:
    """Rewrite `--include a b c` as `--include a --include b --include c`, if the repo stands before it.

    hfd.sh separates patterns by spaces, `hf` repeats the option; both work.
    """
    out: list[str] = []
    repo_options = ("--repo", "--lock")  # with one of these, every plain word is a file
    known, option, first = any(word.partition("=")[0] in repo_options for word in words), "", False
    skip = True  # the first word is the command's name
    for word in words:
        if word.startswith("-") and len(word) > 1:
            option, first = (word, True) if word in ("--include", "--exclude") else ("", False)
            skip = _takes_next(word) and not option
            out.append(word)
        elif option:
            if first:
                out.append(word)
                first = False
            elif known:
                out += [option, word]
            else:
                out.append(word)
                known, option = True, ""
        else:
            out.append(word)
            known = known or not skip
            skip = False
    return out


_SWITCHES = {
    *("--force", "--force-download", "--no-pickle", "--dry-run", "--offline", "--quiet", "--verbose", "--json"),
    *("--strict", "--why", "--trace", "--help", "--version"),
}
_BUNDLE = re.compile(r"-(?P<switches>[qvhV]*)(?P<option>[^-].*)?", re.DOTALL)  # short options: -q, -x, -x8, -qvx8


def _takes_next(word: str) -> bool:
    """Return whether the next word is this option's value: not after `-x8`, which contains it, nor after a switch."""
    if bundle := _BUNDLE.fullmatch(word):
        return len(bundle["option"] or "") == 1
    return word not in _SWITCHES and "=" not in word


def asks_for_log(words: Sequence[str]) -> bool:
    """Return whether the words contain -v or --verbose, alone or bundled with other switches."""
    return any(_verbose(word) for word in words)


def _verbose(word: str) -> bool:
    bundle = _BUNDLE.fullmatch(word)
    return "v" in bundle["switches"] if bundle else word == "--verbose"


def split(words: Sequence[str], repo: str) -> tuple[str, list[str]]:
    """Return the repo and the files. With --repo every word is a file; otherwise the first word is the repo."""
    if repo:
        return repo, list(words)
    if not words:
        raise UsageError("no repo given", "For example: gpuaria fetch gpt2-medium, or --repo gpt2-medium.")
    return words[0], list(words[1:])


def patterns(given: Sequence[str]) -> list[str]:
    """Split `"*.json *.bin"` into two patterns, but keep a name with spaces, such as `"my file.txt"`, whole."""
    found: list[str] = []
    for words in given:
        parts = words.split()
        several = len(parts) > 1 and all(part.endswith("/") or set(part) & set("*?[") for part in parts)
        found += parts if several else [words]
    return found


def known_kind(kind: str) -> "records.RepoKind | None":
    """Return the repo type, given in singular or plural, or None if it is empty. Raises UsageError."""
    singular = kind.removesuffix("s")
    if not kind:
        return None
    if singular not in ("model", "dataset", "space"):
        raise UsageError(f"unknown --type {kind}", "Choose model, dataset or space.")
    return singular

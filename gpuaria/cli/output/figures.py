"""Sizes, times, counts and tables as text for people."""

from collections.abc import Iterable, Sequence

from gpuaria.text import decimal, harmless


def size(count: float) -> str:
    """Return a size in decimal units, as the hub's pages show it."""
    return decimal(round(count))


def speed(rate: float) -> str:
    """Return a speed in decimal units per second."""
    return f"{size(rate)}/s"


def duration(seconds: float) -> str:
    """Return `7.3 s`, `2 min 05 s` or `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def files(count: int) -> str:
    """Return `1 file`, `12 files`."""
    return many(count, "file")


def many(count: int, thing: str) -> str:
    """Return `1 thing`, `12 things`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def activity(connections: int, mirrors: int, verified: int, total: int) -> str:
    """Return `48 connections to 3 mirrors, 11 of 12 files verified`."""
    return f"{many(connections, 'connection')} to {many(mirrors, 'mirror')}, {verified} of {files(total)} verified"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows as left-justified columns, two spaces apart."""
    kept = list(rows)
    widths = [max(len(row[i]) for row in kept) for i in range(len(kept[0]))] if kept else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in kept)
    return "\n".join(map(harmless, lines))

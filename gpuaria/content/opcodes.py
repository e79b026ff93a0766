"""One pickle read as the machine code that it is, and never run: pickletools' table with names for strings alone.

What stands on the stack is known where it is a short string, since STACK_GLOBAL takes the names of a module and of a
thing from there. All else is None. Arguments that are no names are skipped, so that the size of a file costs nothing.
Where the real machines (in C and in Python) differ in what they refuse, or are picky, this one goes on: a pickle that
it gave up too early would hide what comes after.
"""

import codecs
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from gpuaria.content.harmless import HARMLESS
from gpuaria.content.reader import Ended, ForwardReader, Spent

UNKNOWN = "a name computed while loading"  # of an import whose name is not written in the file
_NAME = 512  # characters that the name of a module or a thing may have
_KEPT = 64  # imports that are remembered
_LINE = 4 * _NAME  # bytes of a text that are looked at
_LENGTH_BYTES = {-2: (1, False), -3: (4, True), -4: (4, False), -5: (8, False)}  # pickletools.TAKEN_FROM_ARGUMENT*
_ESCAPED = re.compile(rb"""(?:[^\\]|\\(?:[\\'"abfnrtv]|[0-3]?[0-7]{1,2}|x[0-9a-fA-F]{2}))*""")
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}

End = Literal["stop", "cut", "broken", "nothing"]


@dataclass
class Found:
    """What the pickles of a file bring in. `imports`: `module.name` of what is not harmless; `imported`, `called`: how
    often something was imported, and something called."""

    imports: dict[str, None] = field(default_factory=dict)
    imported: int = 0
    called: int = 0

    def add(self, module: str | None, name: str | None) -> None:
        """Take an import down; None for what is not known before it runs."""
        self.imported += 1
        if f"{module} {name}" not in HARMLESS and len(self.imports) < _KEPT:
            written = module is not None and name is not None and len(module) + len(name) <= _NAME
            self.imports[f"{module}.{name}" if written else UNKNOWN] = None


class Walk:
    """The machine for one pickle, which begins where `source` is. `protocol`: what it declares, -1 if it does not."""

    def __init__(self, source: ForwardReader, found: Found) -> None:
        self.source, self.found = source, found
        self.stack: list[str | None] = []
        self.marks: list[int] = []
        self.memo: dict[int, str | None] = {}
        self.protocol = -1

    def run(self) -> End:
        """Walk to STOP. "cut": the budget ended before; "broken": it cannot be read on; "nothing": there is no byte."""
        first = True
        try:
            while (code := self.source.byte()) >= 0:
                self.source.budget.steps -= 1
                if self.source.budget.steps < 0:
                    return "cut"
                if code == _STOP:
                    return "stop" if len(self.stack) > self.fence else "broken"
                if code == _PROTO and first:
                    self.protocol = self._protocol()
                else:
                    op = _OPS[code]
                    op.act(self, op)
                first = False
        except Spent:
            return "cut"
        except (Ended, ValueError, LookupError):
            return "broken"
        return "nothing" if first else "broken"

    def _protocol(self) -> int:
        version = self.source.byte()
        if not 0 <= version <= _HIGHEST:
            raise ValueError("unknown protocol version")
        return version

    @property
    def fence(self) -> int:
        """Where the stack begins above the last mark."""
        return self.marks[-1] if self.marks else 0

    def need(self, count: int) -> None:
        """Raise LookupError unless `count` things are on the stack above the last mark."""
        if len(self.stack) - count < self.fence:
            raise LookupError("stack underflow")

    def length(self, op: "_Op") -> int:
        """The length that stands before an argument."""
        count, signed = _LENGTH_BYTES[op.length]
        length = int.from_bytes(self.source.take(count), "little", signed=signed)
        if length < 0:
            raise ValueError("a length below 0")
        return length

    def number(self, op: "_Op") -> int | None:
        """An argument that is a number. As text it may be one for one machine alone: then None."""
        if op.length != -1:
            return int.from_bytes(self.source.take(op.length), "little")
        try:
            return int(self.source.line(_LINE).partition(b"\0")[0])
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class _Op:
    """`length`: bytes of the argument, or as pickletools counts them. `marked`: it takes all down to the last mark."""

    name: str
    length: int
    marked: bool
    pops: int
    pushes: int
    act: Callable[[Walk, "_Op"], None]


def _any(walk: Walk, op: _Op) -> None:
    """What the table says: pass over the argument, pop, push."""
    if op.length == -1:
        walk.source.line(0)
    elif op.length:
        walk.source.skip(op.length if op.length > 0 else walk.length(op))
    if op.marked:
        del walk.stack[walk.marks.pop() :]
    if op.pops:
        walk.need(op.pops)
        del walk.stack[-op.pops :]
    if op.pushes:
        walk.stack.append(None)
    walk.found.called += op.name in _CALLS


def _mark(walk: Walk, op: _Op) -> None:
    walk.marks.append(len(walk.stack))


def _pop(walk: Walk, op: _Op) -> None:
    """Above a mark with nothing on it, the mark."""
    (walk.stack if len(walk.stack) > walk.fence else walk.marks).pop()


def _dup(walk: Walk, op: _Op) -> None:
    walk.need(1)
    walk.stack.append(walk.stack[-1])


def _text(walk: Walk, op: _Op) -> None:
    length = walk.length(op)
    if length > _LINE:
        walk.source.skip(length)
        walk.stack.append(None)
        return
    data = walk.source.take(length)
    walk.stack.append(data.decode("utf-8", "surrogatepass") if "UNI" in op.name else data.decode("latin-1"))


def _text_line(walk: Walk, op: _Op) -> None:
    data = walk.source.line(_LINE)
    if len(data) > _LINE:
        walk.stack.append(None)
    elif op.name == "UNICODE":
        walk.stack.append(data.decode("raw-unicode-escape"))
    else:
        inner = data.strip()[1:-1]
        known = _ESCAPED.fullmatch(inner)  # another one is kept with its backslash, which no name has
        walk.stack.append(codecs.escape_decode(inner)[0].decode("latin-1") if known else None)


def _put(walk: Walk, op: _Op) -> None:
    index = len(walk.memo) if op.name == "MEMOIZE" else walk.number(op)
    walk.need(1)
    if index is not None:
        walk.memo[index] = walk.stack[-1]


def _get(walk: Walk, op: _Op) -> None:
    index = walk.number(op)
    walk.stack.append(None if index is None else walk.memo.get(index))


def _global(walk: Walk, op: _Op) -> None:
    module, name = (walk.source.line(_LINE).decode("utf-8", "replace") for _ in range(2))
    if op.name == "INST":
        del walk.stack[walk.marks.pop() :]
        walk.found.called += 1
    walk.found.add(module, name)
    walk.stack.append(None)


def _stack_global(walk: Walk, op: _Op) -> None:
    walk.need(2)
    name, module = walk.stack.pop(), walk.stack.pop()
    walk.found.add(module, name)
    walk.stack.append(None)


def _extension(walk: Walk, op: _Op) -> None:
    walk.found.add("copyreg", f"extension {walk.number(op)}")
    walk.stack.append(None)


_ACTS: dict[str, Callable[[Walk, _Op], None]] = {
    "MARK": _mark,
    "POP": _pop,
    "DUP": _dup,
    "STRING": _text_line,
    "UNICODE": _text_line,
    "GLOBAL": _global,
    "INST": _global,
    "STACK_GLOBAL": _stack_global,
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"), _text),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
}


def _op(info: pickletools.OpcodeInfo) -> _Op:
    before = [kind.name for kind in info.stack_before]
    marked = "mark" in before
    pops = before.index("mark") if marked else len(before)
    length = info.arg.n if info.arg else 0
    return _Op(info.name, length, marked, pops, len(info.stack_after), _ACTS.get(info.name, _any))


_OPS = {ord(info.code): _op(info) for info in pickletools.opcodes}
_STOP, _PROTO = ord("."), 0x80
_HIGHEST = 5

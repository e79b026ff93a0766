"""Symbolic execution of one pickle, without running any of its code, based on the opcode table of pickletools.

The stack holds short strings, since STACK_GLOBAL takes module and attribute names from it, and None for every other
value. Arguments that cannot be names are skipped, so large files are cheap. If the C and Python implementations
disagree on whether an opcode is valid, this machine continues: stopping early would hide later imports.
"""

import codecs
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from gpuaria.content.harmless import HARMLESS
from gpuaria.content.reader import BudgetExceeded, ForwardReader, UnexpectedEnd

UNKNOWN = "a name computed while loading"  # import whose name is not written in the file
_MAX_NAME = 512  # characters of a module name or attribute name
_MAX_IMPORTS = 64  # imports that are stored
_MAX_TEXT = 4 * _MAX_NAME  # bytes of a string that are examined
_LENGTH_BYTES = {-2: (1, False), -3: (4, True), -4: (4, False), -5: (8, False)}  # pickletools.TAKEN_FROM_ARGUMENT*
_ESCAPED = re.compile(rb"""(?:[^\\]|\\(?:[\\'"abfnrtv]|[0-3]?[0-7]{1,2}|x[0-9a-fA-F]{2}))*""")
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}

End = Literal["stop", "cut", "broken", "nothing"]


@dataclass
class PickleFindings:
    """The imports of the pickles in a file.

    `imports`: `module.name` of each import that is not harmless. `imported`, `called`: number of imports and calls.
    """

    imports: dict[str, None] = field(default_factory=dict)
    imported: int = 0
    called: int = 0

    def add_import(self, module: str | None, name: str | None) -> None:
        """Record an import. None: a name that is only known at run time."""
        self.imported += 1
        if f"{module} {name}" not in HARMLESS and len(self.imports) < _MAX_IMPORTS:
            written = module is not None and name is not None and len(module) + len(name) <= _MAX_NAME
            self.imports[f"{module}.{name}" if written else UNKNOWN] = None


class PickleMachine:
    """The machine for one pickle, which starts at the position of `source`. `protocol`: -1 if not declared."""

    def __init__(self, source: ForwardReader, found: PickleFindings) -> None:
        self.source, self.found = source, found
        self.stack: list[str | None] = []
        self.marks: list[int] = []
        self.memo: dict[int, str | None] = {}
        self.protocol = -1

    def run(self) -> End:
        """Run to STOP. Returns "cut" if the budget ran out, "broken" for invalid data, "nothing" for no data."""
        first = True
        try:
            while (code := self.source.byte()) >= 0:
                self.source.budget.steps -= 1
                if self.source.budget.steps < 0:
                    return "cut"
                if code == _STOP:
                    return "stop" if len(self.stack) > self.stack_base else "broken"
                if code == _PROTO and first:
                    self.protocol = self._protocol()
                else:
                    op = _OPS[code]
                    op.act(self, op)
                first = False
        except BudgetExceeded:
            return "cut"
        except (UnexpectedEnd, ValueError, LookupError):
            return "broken"
        return "nothing" if first else "broken"

    def _protocol(self) -> int:
        version = self.source.byte()
        if not 0 <= version <= _HIGHEST:
            raise ValueError("unknown protocol version")
        return version

    @property
    def stack_base(self) -> int:
        """The stack index of the last mark, 0 without one."""
        return self.marks[-1] if self.marks else 0

    def require(self, count: int) -> None:
        """Raise LookupError unless the stack has `count` items above the last mark."""
        if len(self.stack) - count < self.stack_base:
            raise LookupError("stack underflow")

    def length(self, op: "_Opcode") -> int:
        """Read the length in front of an argument."""
        count, signed = _LENGTH_BYTES[op.length]
        length = int.from_bytes(self.source.take(count), "little", signed=signed)
        if length < 0:
            raise ValueError("a length below 0")
        return length

    def number(self, op: "_Opcode") -> int | None:
        """Read a numeric argument. Returns None for text that only some implementations accept as a number."""
        if op.length != -1:
            return int.from_bytes(self.source.take(op.length), "little")
        try:
            return int(self.source.line(_MAX_TEXT).partition(b"\0")[0])
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class _Opcode:
    """One opcode. `length`: bytes of the argument, or a pickletools code. `marked`: it pops down to the last mark."""

    name: str
    length: int
    marked: bool
    pops: int
    pushes: int
    act: Callable[[PickleMachine, "_Opcode"], None]


def _skip_opcode(walk: PickleMachine, op: _Opcode) -> None:
    """Handle an opcode by its table entry: skip the argument, pop, push."""
    if op.length == -1:
        walk.source.line(0)
    elif op.length:
        walk.source.skip(op.length if op.length > 0 else walk.length(op))
    if op.marked:
        del walk.stack[walk.marks.pop() :]
    if op.pops:
        walk.require(op.pops)
        del walk.stack[-op.pops :]
    if op.pushes:
        walk.stack.append(None)
    walk.found.called += op.name in _CALLS


def _mark(walk: PickleMachine, op: _Opcode) -> None:
    walk.marks.append(len(walk.stack))


def _pop(walk: PickleMachine, op: _Opcode) -> None:
    """Pop the top item, or the last mark if there is no item above it."""
    (walk.stack if len(walk.stack) > walk.stack_base else walk.marks).pop()


def _dup(walk: PickleMachine, op: _Opcode) -> None:
    walk.require(1)
    walk.stack.append(walk.stack[-1])


def _text(walk: PickleMachine, op: _Opcode) -> None:
    length = walk.length(op)
    if length > _MAX_TEXT:
        walk.source.skip(length)
        walk.stack.append(None)
        return
    data = walk.source.take(length)
    walk.stack.append(data.decode("utf-8", "surrogatepass") if "UNI" in op.name else data.decode("latin-1"))


def _text_line(walk: PickleMachine, op: _Opcode) -> None:
    data = walk.source.line(_MAX_TEXT)
    if len(data) > _MAX_TEXT:
        walk.stack.append(None)
    elif op.name == "UNICODE":
        walk.stack.append(data.decode("raw-unicode-escape"))
    else:
        inner = data.strip()[1:-1]
        known = _ESCAPED.fullmatch(inner)  # invalid escapes keep their backslash, which no name contains
        walk.stack.append(codecs.escape_decode(inner)[0].decode("latin-1") if known else None)


def _put(walk: PickleMachine, op: _Opcode) -> None:
    index = len(walk.memo) if op.name == "MEMOIZE" else walk.number(op)
    walk.require(1)
    if index is not None:
        walk.memo[index] = walk.stack[-1]


def _get(walk: PickleMachine, op: _Opcode) -> None:
    index = walk.number(op)
    walk.stack.append(None if index is None else walk.memo.get(index))


def _global(walk: PickleMachine, op: _Opcode) -> None:
    module, name = (walk.source.line(_MAX_TEXT).decode("utf-8", "replace") for _ in range(2))
    if op.name == "INST":
        del walk.stack[walk.marks.pop() :]
        walk.found.called += 1
    walk.found.add_import(module, name)
    walk.stack.append(None)


def _stack_global(walk: PickleMachine, op: _Opcode) -> None:
    walk.require(2)
    name, module = walk.stack.pop(), walk.stack.pop()
    walk.found.add_import(module, name)
    walk.stack.append(None)


def _extension(walk: PickleMachine, op: _Opcode) -> None:
    walk.found.add_import("copyreg", f"extension {walk.number(op)}")
    walk.stack.append(None)


_HANDLERS: dict[str, Callable[[PickleMachine, _Opcode], None]] = {
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


def _opcode_of(info: pickletools.OpcodeInfo) -> _Opcode:
    before = [kind.name for kind in info.stack_before]
    marked = "mark" in before
    pops = before.index("mark") if marked else len(before)
    length = info.arg.n if info.arg else 0
    return _Opcode(info.name, length, marked, pops, len(info.stack_after), _HANDLERS.get(info.name, _skip_opcode))


_OPS = {ord(info.code): _opcode_of(info) for info in pickletools.opcodes}
_STOP, _PROTO = ord("."), 0x80
_HIGHEST = 5

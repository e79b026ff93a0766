"""What a file's name says, and what a scan says of it: apart from the scan, which takes long to import."""

import re
from dataclasses import dataclass

_BY_NAME = re.compile(r".*\.(pkl|pickle|pt|pth|ckpt|joblib|dill)|(.*pytorch_model.*|adapter_model|training_args)\.bin")


@dataclass(frozen=True, slots=True)
class Scanned:
    """A pickle: the first names that it imports and that are not known to be harmless, the worst ahead. `whole`:
    it was read to its end, so that these are all (or the first of them)."""

    imports: tuple[str, ...]
    whole: bool


def named(path: str) -> bool:
    """Whether a file's name surely says pickle. `model.bin` does not: it may be anything."""
    return _BY_NAME.fullmatch(path.rpartition("/")[2].lower()) is not None

"""Pickle file names, and the result of a pickle scan; separate from the scanner, which is slow to import."""

import re
from dataclasses import dataclass

_BY_NAME = re.compile(r".*\.(pkl|pickle|pt|pth|ckpt|joblib|dill)|(.*pytorch_model.*|adapter_model|training_args)\.bin")


@dataclass(frozen=True, slots=True)
class PickleScan:
    """The scan result of a pickle file.

    `imports`: the first imported names not known to be harmless, most dangerous first. `whole`: the scan reached the
    end of the file.
    """

    imports: tuple[str, ...]
    whole: bool


def has_pickle_name(path: str) -> bool:
    """Return whether the file name is typical of a pickle. `model.bin` is not, since it may be any format."""
    return _BY_NAME.fullmatch(path.rpartition("/")[2].lower()) is not None

"""The eleven scenarios, what each one measures, and the goals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One row of the table; `key` is the scenario's number and a letter."""

    key: str
    work: str
    want: str

    @property
    def scenario(self) -> int:
        """The number of its scenario."""
        return int(self.key.rstrip("abcdefgh"))


TITLES = {
    1: "1 x 1 GB, 2 MB/s per connection, one mirror",
    2: "1 x 1.5 GB, 160 ms round trip, 0.02 % loss, 500 Mbit/s",
    3: "3 unequal mirrors, one file of 1.5 GB",
    4: "20 shards x 200 MB, the same three mirrors",
    5: "2,000 small files (0.4-40 kB), 160 ms round trip",
    6: "mixed: 3,000 small and 8 large files (100 MB), 160 ms",
    7: "4 GB over loopback, no limit, verified",
    8: "from the last byte to verified, 10 GB",
    9: "nothing to do, and a listing of 100,000 files",
    10: "resume after kill -9 at 50 %",
    11: "CPU seconds per GB",
}

GOALS = [
    Goal("1a", "share of the limit", ">= 0.97"),
    Goal("1b", "times as fast as hf download", ">= 12"),
    Goal("2a", "times as fast as aria2c -x16", ">= 1.0"),
    Goal("2b", "times as fast as hf download", ">= 2"),
    Goal("3a", "share of the limit", ">= 0.92"),
    Goal("3b", "times as fast as plain aria2c with the same URLs", ">= 1.1"),
    Goal("4a", "share of the limit", ">= 0.95"),
    Goal("5a", "times as fast as hf download", ">= 5"),
    Goal("5b", "times as fast as aria2c -j16", ">= 2"),
    Goal("5c", "hub requests beyond the number of files", "<= 3"),
    Goal("6a", "the large files' time, over that without the small ones", "<= 1.1"),
    Goal("6b", "the whole time, over the longer of both alone", "<= 1.1"),
    Goal("7a", "time over plain aria2c, unverified", "<= 1.10"),
    Goal("7b", "time over aria2c, then sha256sum", "<= 0.75"),
    Goal("8a", "seconds from the last byte to the verified file", "<= 1"),
    Goal("9a", "1,000 files, complete: seconds, warm", "<= 0.5"),
    Goal("9b", "1,000 files, complete: hub requests", "<= 2"),
    Goal("9c", "100,000 files: seconds for the plan", "<= 10"),
    Goal("9d", "100,000 files: MB of memory", "<= 400"),
    Goal("10a", "% of the file downloaded again", "<= 1"),
    Goal("11a", "s/GB of gpuaria's own process beyond hashing, at full speed", "<= 0.2"),
    Goal("11b", "the same at 64 MB/s", "<= 0.2"),
    Goal("11c", "s/GB of gpuaria and its aria2c together, against aria2c alone", ""),
]
GOAL = {goal.key: goal for goal in GOALS}


def met(want: str, got: float) -> bool:
    """Return whether a figure meets a goal such as ">= 0.97" or "<= 1"."""
    sign, _, number = want.partition(" ")
    return got >= float(number) if sign == ">=" else got <= float(number)

"""An emulated wide-area network on one machine, for tests and benchmarks. Needs root, iproute2 and gcc."""

from lab.loop import Loop
from lab.net import Host, Net, unavailable_reason
from lab.spaces import Counter, inside

__all__ = ["LINK", "PAYLOAD", "UNEQUAL", "Counter", "Host", "Loop", "Net", "inside", "unavailable_reason"]

# Three mirrors of different rate, delay and loss. Together they exceed the client's link.
UNEQUAL = {"m1": Host("160mbit", 10), "m2": Host("240mbit", 40, 0.02), "m3": Host("400mbit", 100, 0.05)}
LINK = "500mbit"
PAYLOAD = 58e6  # payload bytes per second of this link, in packets of 1,500 bytes

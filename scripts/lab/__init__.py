"""A wide-area network on one machine, for tests and benchmarks. Needs root, iproute2 and gcc."""

from lab.loop import Loop
from lab.net import Host, Net, why_not
from lab.spaces import Counter, inside

__all__ = ["LINK", "PAYLOAD", "UNEQUAL", "Counter", "Host", "Loop", "Net", "inside", "why_not"]

# Three mirrors that differ in everything, and a client whose link is the limit.
UNEQUAL = {"m1": Host("160mbit", 10), "m2": Host("240mbit", 40, 0.02), "m3": Host("400mbit", 100, 0.05)}
LINK = "500mbit"
PAYLOAD = 58e6  # bytes/s of payload that this link carries in packets of 1,500 bytes

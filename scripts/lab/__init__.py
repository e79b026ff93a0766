"""A wide-area network on one machine, for tests and benchmarks. Needs root, iproute2 and gcc."""

from lab.net import Host, Net, why_not

__all__ = ["Host", "Net", "why_not"]

"""What keeps a fetch from working here, each thing with the line that fixes it. See `examine`."""

from gpuaria.doctor.finding import GROUPS, Finding, Severity, exit_status
from gpuaria.doctor.run import Checkup, examine

__all__ = ["GROUPS", "Checkup", "Finding", "Severity", "examine", "exit_status"]

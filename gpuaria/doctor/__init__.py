"""Checks for `gpuaria doctor`: what would make a fetch fail, each problem with a command that fixes it."""

from gpuaria.doctor.finding import GROUPS, Finding, Severity, exit_status
from gpuaria.doctor.run import Checkup, examine

__all__ = ["GROUPS", "Checkup", "Finding", "Severity", "examine", "exit_status"]

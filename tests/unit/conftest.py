"""Fixtures of several unit tests."""

from tests.support.world import world as world

"""Fixtures shared by unit tests."""

from tests.support.settings_world import world as world

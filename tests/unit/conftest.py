"""Fixtures of several unit tests."""

from tests.support.settings_world import world as world

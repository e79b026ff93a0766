"""gpuaria.mirrors.location: places from words and time zones, and the distances between them."""

from pathlib import Path

import pytest

from gpuaria.mirrors.location import FAR, NEAR, SAME, UNKNOWN, Location, distance, own_place, place_named, place_of_zone
from gpuaria.mirrors.location import time_zone as zone_of
from gpuaria.settings.known import shipped

CN, DE = Location("CN", "asia"), Location("DE", "europe")
NAMED = [
    ("CN", CN),
    ("de", DE),
    ("mainland China", CN),
    ("Hong Kong, China", Location("HK", "asia")),
    ("Niger", Location("NE", "africa")),
    ("Lagos, Nigeria", Location("NG", "africa")),
    ("EU", Location("", "europe")),
    ("south america", Location("", "south-america")),
    ("somewhere in Europe", Location("", "europe")),
    ("machine room", Location()),
    ("XX", Location()),
    ("", Location()),
]
ZONES = [
    ("Asia/Shanghai", CN),
    ("Asia/Chongqing", CN),
    ("PRC", CN),
    ("Europe/Berlin", DE),
    ("US/Pacific", Location("US", "north-america")),
    ("America/Kentucky/Monticello", Location("US", "north-america")),
    ("America/Sao_Paulo", Location("BR", "south-america")),
    ("Japan", Location("JP", "asia")),
    ("Atlantic/Reykjavik", Location("IS", "europe")),
    ("Asia/Nowhere", Location("", "asia")),
    ("Etc/UTC", Location()),
    ("UTC", Location()),
    ("CET-1CEST", Location()),
    ("", Location()),
]
DISTANCES = [
    (CN, CN, SAME),
    (CN, Location("JP", "asia"), NEAR),
    (CN, Location("", "asia"), NEAR),
    (CN, DE, FAR),
    (CN, Location(), UNKNOWN),
    (Location(), Location(), UNKNOWN),
]


@pytest.mark.parametrize(("text", "place"), NAMED)
def test_words_name_a_place(text: str, place: Location) -> None:
    assert place_named(text) == place


@pytest.mark.parametrize(("zone", "place"), ZONES)
def test_a_time_zone_has_a_place(zone: str, place: Location) -> None:
    assert place_of_zone(zone) == place


@pytest.mark.parametrize(("here", "there", "expected"), DISTANCES)
def test_distances(here: Location, there: Location, expected: int) -> None:
    assert distance(here, there) == distance(there, here) == expected


def test_the_setting_precedes_geoip_and_geoip_the_time_zone() -> None:
    zone = {"TZ": "Asia/Tokyo"}
    assert own_place("DE", zone, lambda: "CN") == DE
    assert own_place("", zone, lambda: "CN") == CN
    assert own_place("", zone, lambda: "").country == "JP"
    assert own_place("", {"TZ": "UTC"}, lambda: "??") == Location()


def test_where_the_time_zone_is_read_from(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert zone_of({}, link) == ""
    link.symlink_to("../usr/share/zoneinfo/Europe/Berlin")
    assert zone_of({}, link) == "Europe/Berlin"
    assert zone_of({"TZ": ":/usr/share/zoneinfo/Asia/Tokyo"}, link) == "Asia/Tokyo"
    plain = tmp_path / "copied"
    plain.write_bytes(b"TZif2")
    assert zone_of({}, plain) == ""


def test_every_shipped_mirror_has_a_location() -> None:
    assert all(place_named(row.location).continent for row in shipped().values())

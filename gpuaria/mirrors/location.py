"""Locations of this machine and of mirrors, used to order mirrors before anything is measured.

This machine's country comes from the setting `location`, else from an installed GeoIP database (if the machine has a
public address), else from the time zone. No packet is sent.
"""

import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from gpuaria.dns import false_answers

SAME, NEAR, UNKNOWN, FAR = 0, 1, 2, 3  # same country, same continent, unknown, another continent
CONTINENTS = ("africa", "antarctica", "asia", "europe", "north-america", "oceania", "south-america")
_SHORT = {"eu": "europe", "north america": "north-america", "south america": "south-america"}
_PREFIXES = {
    "Africa": "africa",
    "America": "north-america",
    "Antarctica": "antarctica",
    "Asia": "asia",
    "Australia": "oceania",
    "Europe": "europe",
    "Pacific": "oceania",
}
_OLD_ZONES = {
    "Brazil": "BR",
    "Canada": "CA",
    "Chile": "CL",
    "Eire": "IE",
    "GB": "GB",
    "Hongkong": "HK",
    "Mexico": "MX",
    "NZ": "NZ",
    "PRC": "CN",
    "ROC": "TW",
    "ROK": "KR",
    "US": "US",
    "Asia/Calcutta": "IN",
    "Asia/Chongqing": "CN",
    "Asia/Harbin": "CN",
    "Asia/Saigon": "VN",
}
_DATABASES = tuple(
    Path(folder) / f"{name}.mmdb"
    for folder in ("/usr/share/GeoIP", "/var/lib/GeoIP", "/usr/local/share/GeoIP", "/usr/local/var/GeoIP")
    for name in ("GeoLite2-Country", "GeoIP2-Country", "GeoLite2-City", "GeoIP2-City", "dbip-country-lite")
)
_TEST_NETS = ((socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "198.51.100.1"))  # RFC 3849, RFC 5737


@dataclass(frozen=True, slots=True)
class Location:
    """A country (ISO 3166 code) and its continent (one of CONTINENTS); empty if unknown."""

    country: str = ""
    continent: str = ""

    def __str__(self) -> str:
        return self.country or self.continent or "unknown"


@cache
def _countries() -> tuple[dict[str, Location], dict[str, Location], dict[str, Location]]:
    """Return the places by country code, by lower-case name, and by time zone, from the shipped table."""
    codes, names, zones = dict[str, Location](), dict[str, Location](), dict[str, Location]()
    text = (resources.files("gpuaria") / "data" / "countries.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        code, continent, name, *rest = line.split("\t")
        place = Location(code, continent)
        codes[code] = place
        names[name.lower()] = place
        zones |= dict.fromkeys("".join(rest).split(), place)
    return codes, names, zones


def place_named(text: str) -> Location:
    """Return the place of a text: a country code, a continent, or words that contain a country's name."""
    codes, names, _ = _countries()
    word = text.strip()
    lower = _SHORT.get(word.lower(), word.lower())
    if word.upper() in codes and len(word) == 2 and lower != "europe":
        return codes[word.upper()]
    if lower in CONTINENTS:
        return Location(continent=lower)
    found = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", lower)]
    if found:
        return names[max(found, key=len)]
    continent = next((one for one in CONTINENTS if re.search(rf"\b{one.replace('-', '[ -]')}\b", lower)), "")
    return Location(continent=continent)


def place_of_zone(zone: str) -> Location:
    """Return the place of a time zone (Europe/Berlin); unknown for UTC and similar zones."""
    codes, names, zones = _countries()
    if zone in zones:
        return zones[zone]
    first = zone.partition("/")[0]
    old = _OLD_ZONES.get(zone) or _OLD_ZONES.get(first)
    if old:
        return codes[old]
    return names.get(zone.lower()) or Location(continent=_PREFIXES.get(first, "") if "/" in zone else "")


def distance(own: Location, other: Location) -> int:
    """Return SAME, NEAR, UNKNOWN or FAR."""
    if own.country and own.country == other.country:
        return SAME
    if not own.continent or not other.continent:
        return UNKNOWN
    return NEAR if own.continent == other.continent else FAR


def own_place(setting: str, environ: Mapping[str, str], country_of: Callable[[], str] | None = None) -> Location:
    """Return this machine's place by the setting, else GeoIP (`country_of` returns a code), else time zone."""
    if setting:
        return place_named(setting)
    code = (country_of or _country_by_geoip)()
    if code in _countries()[0]:
        return _countries()[0][code]
    return place_of_zone(time_zone(environ))


def time_zone(environ: Mapping[str, str], localtime: Path = Path("/etc/localtime")) -> str:
    """Return the name of this machine's time zone from TZ, else from /etc/localtime; empty if neither names one."""
    named = environ.get("TZ", "").removeprefix(":")
    if named:
        return named.rpartition("zoneinfo/")[2]
    with contextlib.suppress(OSError):
        _, found, zone = os.readlink(localtime).rpartition("zoneinfo/")
        return zone if found else ""
    return ""


def _country_by_geoip() -> str:
    """Return the country code of this machine's public address; empty without such an address or without a database."""
    database = next((path for path in _DATABASES if path.is_file()), None)
    if database is None:
        return ""
    try:
        import maxminddb
    except ImportError:
        return ""
    try:
        with maxminddb.open_database(str(database)) as reader:
            for address in _own_addresses():
                found = reader.get(address)
                country = found.get("country") if isinstance(found, dict) else None
                if isinstance(country, dict) and isinstance(country.get("iso_code"), str):
                    return str(country["iso_code"])
    except (OSError, ValueError, maxminddb.InvalidDatabaseError):
        pass
    return ""


def _own_addresses() -> list[str]:
    """Return this machine's public source addresses; connecting a datagram socket sends nothing."""
    found = []
    for family, target in _TEST_NETS:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((target, 9))
            own = str(sock.getsockname()[0]).partition("%")[0]
            if not false_answers.special_range(own):
                found.append(own)
    return found

"""Where personal data may be kept: the hosts of a region, and what of the settings lies elsewhere.

`DATA_RESIDENCY_HOSTS` lists, by commas, `<region>=<host>`: a name, `*.<domain>`, an address or a network. Names are
taken as they stand, for a start must not hang on DNS: list what only your own network resolves.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

LOCAL_SCHEMES = frozenset({"", "sqlite", "filesystem", "memory", "console", "consolemail", "file"})  # no other machine


def allowed_hosts(listed: str, region: str) -> list[str]:
    """The hosts of `region`. Raises `ValueError` for an entry that is none; it names no host but the faulty one."""
    found = []
    for entry in filter(None, map(str.strip, listed.split(","))):
        place, equals, host = entry.partition("=")
        if not equals or not place.strip() or not host.strip():
            raise ValueError(f"{entry!r} is not <region>=<host>, as in KE=*.nairobi.example.com or KE=10.20.0.0/16")
        if "/" in host:
            ipaddress.ip_network(host.strip())
        if place.strip().upper() == region.upper():
            found.append(host.strip().lower())
    return found


def hosts_elsewhere(urls: Mapping[str, str], allowed: list[str]) -> list[str]:
    """Which of these settings name a host outside of `allowed`, as `DATABASE_URL (db.example.com)`: never more of the
    URL, which holds passwords.
    """
    return [
        f"{name} ({host or 'no host that can be read'})"
        for name, url in urls.items()
        for host in _hosts(url)
        if not _is_here(host, allowed)
    ]


def _hosts(url: str) -> list[str]:
    """The hosts of one URL: a broker's may be several, by semicolons."""
    found = []
    for part in filter(None, map(str.strip, url.split(";"))):
        parts = urlsplit(part)
        if parts.scheme in LOCAL_SCHEMES or parts.scheme.endswith("+socket"):
            continue
        places = parts.netloc.rpartition("@")[2].split(",")  # sentinels, replicas
        found += [_name(place) for place in places]
    return found


def _name(place: str) -> str:
    try:
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_here(host: str, allowed: list[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or any(_is_named(host, one) for one in allowed)
    return address.is_loopback or any(_is_within(address, one) for one in allowed)


def _is_named(host: str, one: str) -> bool:
    return bool(host) and (host.endswith(one[1:]) if one.startswith("*.") else host == one)


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, one: str) -> bool:
    try:
        return address in ipaddress.ip_network(one)
    except ValueError:
        return False

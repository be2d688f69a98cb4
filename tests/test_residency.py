"""Which host of a URL counts, and when it is one of the region's."""

import pytest
from hypothesis import given, strategies as st

from penpay.residency import allowed_hosts, hosts_elsewhere

KENYA = allowed_hosts("KE=db.example.com, KE=*.nairobi.example.com,KE=10.20.0.0/16,KE=2001:db8::/32,TZ=other.com", "KE")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:////srv/penpay.sqlite3",
        "filesystem:///srv/broker",
        "memory://",
        "consolemail://",
        "redis+socket:///run/redis.sock",
        "mysql://u:p@db.example.com:3306/penpay",
        "mysql://u:p@DB.EXAMPLE.COM./penpay",
        "mysql://u:p@a.b.nairobi.example.com/penpay",
        "mysql://u:p@10.20.255.1/penpay",
        "mysql://u:p@[2001:db8::7]:3306/penpay",
        "mysql://u:p@127.0.0.1/penpay",
        "redis://localhost:6379/0",
        "redis://[::1]/0",
        "sentinel://:p@10.20.0.1:26379,10.20.0.2:26379/0;sentinel://10.20.0.3:26379",
    ],
)
def test_what_stays_on_this_machine_or_in_the_region_is_let_be(url):
    assert hosts_elsewhere({"URL": url}, KENYA) == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("mysql://u:p@other.com/penpay", "other.com"),  # another region's
        ("mysql://u:p@nairobi.example.com/penpay", "nairobi.example.com"),  # not below itself
        ("mysql://u:p@evilnairobi.example.com/penpay", "evilnairobi.example.com"),
        ("mysql://u:p@db.example.com.evil.net/penpay", "db.example.com.evil.net"),
        ("mysql://u:db.example.com@evil.net/penpay", "evil.net"),
        ("mysql://10.20.0.1@evil.net/penpay", "evil.net"),
        ("mysql://u:p@10.21.0.1/penpay", "10.21.0.1"),
        ("redis://127.0.0.1.evil.net:6379/0", "127.0.0.1.evil.net"),
        ("sentinel://10.20.0.1:26379,evil.net:26379/0", "evil.net"),
        ("redis://10.20.0.1;redis://evil.net", "evil.net"),
        ("mysql:///penpay", "no host that can be read"),
    ],
)
def test_what_lies_elsewhere_is_named_by_its_host_alone(url, host):
    assert hosts_elsewhere({"URL": url}, KENYA) == [f"URL ({host})"]


@given(password=st.from_regex(r"[A-Za-z0-9%]{8,20}", fullmatch=True))
def test_no_password_is_ever_told(password):
    told = hosts_elsewhere({"URL": f"mysql://u:{password}@evil.net/penpay"}, KENYA)

    assert told == ["URL (evil.net)"]


@pytest.mark.parametrize("listed", ["db.example.com", "=db.example.com", "KE=", "KE=10.20.0.0/33", "KE=10.20.0.1/16"])
def test_an_entry_that_is_none_is_refused(listed):
    with pytest.raises(ValueError, match=r"region|network|host bits"):
        allowed_hosts(listed, "KE")

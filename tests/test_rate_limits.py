"""The table of rate limits: what the settings may change of it, and that what is told of it is so."""

import re
from pathlib import Path

import pytest

from identity.application.codes import Cause, ceilings
from identity.domain.contact import Email
from penpay.rate_limits import TABLE, rate_limits
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.rate_limits import RateLimit

ROOT = Path(__file__).parents[1]
MESSAGES = Phone("254712345678"), Email("amina@example.org")


def test_a_change_is_of_one_limit_and_leaves_the_rest():
    changed = rate_limits("quotes.user=21, sms_session.all=100", bounded=True)

    assert changed["quotes.user"] == RateLimit(21, 600)
    assert {name for name, one in changed.items() if one.most != TABLE[name].most} == {"quotes.user", "sms_session.all"}


def test_outside_production_all_can_be_changed_at_once_and_single_ones_after_it():
    changed = rate_limits("*=1000000,sms_session.all=5", bounded=False)

    assert {one.most for name, one in changed.items() if name != "sms_session.all"} == {1_000_000}
    assert changed["sms_session.all"].most == 5


@pytest.mark.parametrize(
    "wrong", ["quotes.user", "quotes.user=", "quotes.user=0", "quotes.user=-1", "quotes.user=x", "nothing.all=5", "=5"]
)
@pytest.mark.parametrize("bounded", [True, False])
def test_what_is_no_limit_or_no_number_is_refused(wrong, bounded):
    with pytest.raises(ValueError, match=r"quotes\.user"):
        rate_limits(wrong, bounded=bounded)


@pytest.mark.parametrize("name", TABLE)
def test_none_can_be_switched_off_in_production(name):
    row = TABLE[name]
    assert 1 <= row.least <= row.most <= row.highest
    assert rate_limits(f"{name}={row.least}", bounded=True)[name].most == row.least
    for beyond in (row.least - 1, row.highest + 1, 10**9):
        with pytest.raises(ValueError, match=re.escape(name) + " must be from|whole number"):
            rate_limits(f"{name}={beyond}", bounded=True)
    with pytest.raises(ValueError, match="there is no limit"):
        rate_limits("*=1000000", bounded=True)


def test_every_limit_that_the_code_names_is_in_the_table_and_each_of_the_table_is_named():
    code = "".join(
        file.read_text()
        for context in ("identity", "mpesa_integration", "payments", "shared_kernel")
        for file in (ROOT / context).rglob("*.py")
        if "tests" not in file.parts
    )
    named = set(re.findall(r'[Cc]ounter\(f?"([a-z_.]+)"', code)) | set(re.findall(r'"(login\.[a-z_]+)"', code))
    named |= set(re.findall(r'counters_of_address\("([a-z_.]+)"', code))
    if 'rates[f"{type}s.user"]' in code:  # counted in the books
        named |= {"deposits.user", "withdrawals.user"}
    named |= {counter.limit for cause in Cause for target in MESSAGES for counter in ceilings(cause, target)}
    named |= {f"{what}.device" for what in re.findall(r'_device\("([a-z_]+)"', code)}
    for what in re.findall(r'_tried\("([a-z_]+)"', code):
        named |= {f"{what}.{whose}" for whose in ("identifier", "device", "address", "all")}
    named |= {f"{what}.address" for what in re.findall(r'_here\("([a-z_]+)"', code)}

    assert named == set(TABLE)


def test_the_example_of_the_environment_tells_the_table():
    told = dict(re.findall(r"([a-z_]+\.[a-z_]+)=(\d+/\d+[a-z]+)", (ROOT / ".env.example").read_text()))

    assert told == {name: f"{row.most}/{span(row.per_s)}" for name, row in TABLE.items()}


def span(seconds: int) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"

"""The table of rate limits: how often what may be tried, and between what bounds `RATE_LIMITS` may change it.

A name is what is tried and, after the dot, of whom it is counted: `all` is everybody together, `device` a device that
is known by its cookie, and so apart from strangers. What a limit is for: docs/adr/0029.
"""

from typing import NamedTuple

from shared_kernel.domain.rate_limits import RateLimit

MINUTE, HOUR, DAY = 60, 3600, 86400


class Row(NamedTuple):
    """At most `most` in any `per_s` seconds; in production from `least` to `highest`."""

    most: int
    per_s: int
    least: int
    highest: int


TABLE: dict[str, Row] = {
    # every request to the API: by the session of a token that we signed, else by address
    "api.session": Row(300, MINUTE, 60, 3_000),
    "api.address": Row(300, MINUTE, 60, 6_000),
    "api.device": Row(60, MINUTE, 20, 600),  # a known one, where its address is full
    "api.address_unknown": Row(1_200, MINUTE, 300, 12_000),  # cookies of devices that are none, where it is full
    "api.address_signed_in": Row(6_000, MINUTE, 300, 60_000),  # beyond it only sessions that are seen to live go on
    # passwords
    "login.identifier": Row(5, 15 * MINUTE, 3, 10),
    "login.identifier_day": Row(20, DAY, 10, 100),
    "login.identifier_all": Row(30, 15 * MINUTE, 10, 100),  # with the right passwords, for each is hashed
    "login.device": Row(5, 15 * MINUTE, 3, 10),
    "login.device_all": Row(30, 15 * MINUTE, 10, 100),
    "login.address": Row(60, 15 * MINUTE, 10, 1_000),
    "login.all": Row(25, 5, 5, 500),  # a short while, so that a flood has no minute's worth of hashes at once
    "reset.identifier": Row(5, HOUR, 2, 20),
    "reset.device": Row(5, HOUR, 2, 20),
    "reset.address": Row(30, HOUR, 5, 500),
    "reset.all": Row(600, HOUR, 60, 10_000),
    "reset_confirm.identifier": Row(10, HOUR, 5, 30),
    "reset_confirm.device": Row(10, HOUR, 5, 30),
    "reset_confirm.address": Row(60, HOUR, 10, 500),
    "reset_confirm.all": Row(600, HOUR, 60, 10_000),
    # accounts, and what costs a message
    "registration.address": Row(10, HOUR, 3, 200),
    "registration.all": Row(600, HOUR, 30, 10_000),
    "codes.user": Row(20, HOUR, 5, 60),
    # what anybody can have sent, what a session can to its customer's proven phone or address, and notices
    "sms_anybody.phone": Row(10, HOUR, 5, 30),
    "sms_anybody.phone_day": Row(30, DAY, 10, 100),
    "sms_anybody.all": Row(2_000, HOUR, 100, 100_000),
    "sms_session.phone": Row(10, HOUR, 5, 30),
    "sms_session.phone_day": Row(30, DAY, 10, 100),
    "sms_session.all": Row(2_000, HOUR, 100, 100_000),
    "sms_notice.phone": Row(10, HOUR, 5, 30),
    "sms_notice.phone_day": Row(30, DAY, 10, 100),
    "sms_notice.all": Row(2_000, HOUR, 100, 100_000),
    "mail_anybody.address": Row(10, HOUR, 5, 30),
    "mail_anybody.all": Row(5_000, HOUR, 100, 100_000),
    "mail_session.address": Row(10, HOUR, 5, 30),
    "mail_session.all": Row(5_000, HOUR, 100, 100_000),
    "mail_notice.address": Row(10, HOUR, 5, 30),
    "mail_notice.all": Row(5_000, HOUR, 100, 100_000),
    "deriv_logins.user": Row(10, HOUR, 5, 60),  # signing in there, and each token or code that is shown, asks Deriv
    # money
    "quotes.user": Row(120, 10 * MINUTE, 20, 1_200),
    "deposits.user": Row(12, HOUR, 3, 100),  # each has M-Pesa prompt the customer's phone
    "withdrawal_codes.user": Row(10, HOUR, 3, 60),
    "withdrawals.user": Row(12, HOUR, 3, 100),
    # audit rows of callbacks that come from elsewhere; those of M-Pesa's addresses are never counted
    "foreign_callbacks.address": Row(20, HOUR, 5, 1_000),
    "foreign_callbacks.all": Row(200, HOUR, 20, 10_000),
    # the audit rows that say that one was reached
    "audit.all": Row(100, HOUR, 10, 1_000),
}


def rate_limits(changes: str, *, bounded: bool) -> dict[str, RateLimit]:
    """The table with `changes` made: `name=most`, by commas; `*=most`, unless `bounded`, is all of them.

    Raises `ValueError`, fit to be shown, for what names no limit or, if `bounded`, leaves its bounds.
    """
    most = {name: row.most for name, row in TABLE.items()}
    for entry in filter(None, map(str.strip, changes.split(","))):
        name, _, number = (part.strip() for part in entry.partition("="))
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            raise ValueError(f"{entry!r} is not <name>=<tries>, as in quotes.user=120, with a whole number above 0")
        if name == "*" and not bounded:
            most = dict.fromkeys(TABLE, int(number))
            continue
        if name not in TABLE:
            raise ValueError(f"there is no limit {name!r}: take one of {', '.join(TABLE)}")
        if bounded and not TABLE[name].least <= int(number) <= TABLE[name].highest:
            raise ValueError(f"{name} must be from {TABLE[name].least} to {TABLE[name].highest} in production")
        most[name] = int(number)
    return {name: RateLimit(most[name], row.per_s) for name, row in TABLE.items()}

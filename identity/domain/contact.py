"""How a customer is called and reached: full names, e-mail addresses and where they live."""

import re
from dataclasses import dataclass, field

from identity.domain.countries import COUNTRIES
from shared_kernel.domain.errors import Unprocessable


class InvalidEmail(Unprocessable):
    """Not an e-mail address."""


class InvalidName(Unprocessable):
    """Not a full name."""


class InvalidAddress(Unprocessable):
    """Not an address that a letter could reach, or one that a spreadsheet would take for a formula."""


@dataclass(frozen=True, slots=True)
class Email:
    """An e-mail address in lower case. `str` and `repr` are masked."""

    address: str

    def __post_init__(self) -> None:
        plain = self.address.isascii() and len(self.address) <= 254 and self.address == self.address.lower()
        if not (plain and re.fullmatch(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+", self.address)):
            raise InvalidEmail("give an e-mail address, as in name@example.org")

    @classmethod
    def parse(cls, text: str) -> "Email":
        """Ignores case and surrounding space. Raises `InvalidEmail`."""
        return cls(text.strip().lower())

    def __str__(self) -> str:
        name, _, host = self.address.partition("@")
        return f"{name[:1]}****@{host}"

    def __repr__(self) -> str:
        return f"Email({self})"


def full_name(text: str) -> str:
    """A name of two words at least, with single spaces. Raises `InvalidName`."""
    name = " ".join(text.split())
    if not (len(name.split()) >= 2 and _is_plain(name, most=120) and name.lstrip("'’‘ʼ")[:1].isalpha()):
        raise InvalidName(
            "give the full name as in the identity document, at least two words and at most 120 characters, "
            "the first of them a letter"
        )
    return name


def _is_plain(text: str, *, most: int) -> bool:
    """Short enough, no control or invisible character, and no formula for a spreadsheet that it is exported to."""
    return len(text) <= most and text.isprintable() and not text.startswith(("=", "+", "-", "@"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a customer lives; single spaces. `country` by ISO 3166-1 alpha-2. Raises `InvalidAddress`."""

    line: str = field(repr=False)
    town: str = field(repr=False, default="")
    county: str = field(repr=False, default="")
    postal_code: str = field(repr=False, default="")
    country: str = "KE"

    def __post_init__(self) -> None:
        for name, most in (("line", 200), ("town", 80), ("county", 80), ("postal_code", 16)):
            text = " ".join(getattr(self, name).split())
            object.__setattr__(self, name, text)
            if not _is_plain(text, most=most):
                raise InvalidAddress(f"give {name} in at most {most} plain characters, not starting with = + - @")
        if not any(c.isalnum() for c in self.line):
            raise InvalidAddress("give line: the street and house, or the P.O. Box")
        if self.country not in COUNTRIES:
            raise InvalidAddress("give the country by its two letters in ISO 3166-1, as in KE")

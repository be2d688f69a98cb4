"""What a customer submits for their identity check: facts, document and images, kept as they were given."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum
from uuid import UUID

from identity.domain.countries import COUNTRIES
from shared_kernel.domain.errors import Conflict, NotFound, TooManyRequests, Unprocessable
from shared_kernel.domain.identifiers import UserId

NAIROBI = timezone(timedelta(hours=3))  # no summer time
HOME = "KE"
ADULT, OLDEST = 18, 120  # years
MOST_TAKEN = 5  # a day: documents that are other customers', before nothing more is looked up for somebody
MOST_UNREADABLE = 20  # a day: submissions with images that can't be read, each of which costs a second to find out


class IdType(StrEnum):
    """Documents that prove who somebody is: the Kenyan identity card, a passport, the Kenyan foreigner certificate."""

    NATIONAL_ID = "national_id"
    PASSPORT = "passport"
    ALIEN_CARD = "alien_card"


class Gender(StrEnum):
    """As passports print it (ICAO 9303); goAML's `gender_type` writes `-` for X (its schema 5.0.2)."""

    FEMALE = "F"
    MALE = "M"
    OTHER = "X"


class Side(StrEnum):
    """What an image shows, by the name of its part of the form."""

    FRONT = "front"
    BACK = "back"
    SELFIE = "selfie"


class KycDataRefused(Unprocessable):
    """Facts or images that can't be right; `extra["errors"]` names each field with a code and what to do."""

    def __init__(self, *errors: tuple[str, str, str]) -> None:
        listed = [{"field": field, "code": code, "detail": detail} for field, code, detail in errors]
        super().__init__("correct the fields named in errors and submit again", errors=listed)


class KycUnderReview(Conflict):
    """Documents are submitted already and not decided on yet."""


class IdentityDocumentTaken(Conflict):
    """The document is another account's; whose is not said."""


class TooManyKycRefusals(TooManyRequests):
    """Documents of other accounts, or images that can't be read, were sent too often."""


class KycSnapshotNotFound(NotFound):
    """No such submission."""


NUMBERS = {
    IdType.NATIONAL_ID: (r"[0-9]{5,9}", "the digits of your identity card's number, 5 to 9 of them"),
    IdType.PASSPORT: (r"(?=.*[0-9])[A-Z0-9]{5,9}", "the passport's number: letters and digits, 5 to 9 of them"),
    IdType.ALIEN_CARD: (r"[0-9]{5,9}", "the digits of your alien card's number, 5 to 9 of them"),
}
KRA_PIN = re.compile(r"[AP][0-9]{9}[A-Z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class KycFacts:
    """What the customer says of themselves and of their document; countries by ISO 3166-1 alpha-2."""

    id_type: IdType
    id_number: str = field(repr=False)
    id_issued_on: date
    id_expires_on: date
    date_of_birth: date = field(repr=False)
    gender: Gender = field(repr=False)
    nationality: str
    residence: str
    kra_pin: str = field(repr=False, default="")

    @property
    def id_country(self) -> str:
        """Whose authority gave the document out: Kenya gives out both cards, a passport comes from one's country."""
        return self.nationality if self.id_type is IdType.PASSPORT else HOME

    @property
    def document(self) -> str:
        """What is one document's own for ever: type, country, number; leading zeros of a card's number don't count."""
        number = self.id_number if self.id_type is IdType.PASSPORT else self.id_number.lstrip("0")
        return f"{self.id_type}|{self.id_country}|{number}"

    def checked(self, today: date) -> "KycFacts":
        """With number and PIN in their one form, if all can be true on `today` (in Kenya). Raises `KycDataRefused`."""
        facts = replace(self, id_number=_plain(self.id_number), kra_pin=_plain(self.kra_pin))
        if errors := [*facts._wrong_document(today), *facts._wrong_person(today)]:
            raise KycDataRefused(*errors)
        return facts

    def _wrong_document(self, today: date) -> Iterator[tuple[str, str, str]]:
        pattern, how = NUMBERS[self.id_type]
        if not re.fullmatch(pattern, self.id_number) or not self.id_number.strip("0"):
            yield "id_number", "invalid_id_number", f"give {how}"
        if not self.date_of_birth < self.id_issued_on <= today:
            yield "id_issued_on", "invalid_issue_date", "give the date of issue that the document shows"
        if self.id_expires_on <= self.id_issued_on:
            yield "id_expires_on", "expires_before_issue", "give the date of expiry that the document shows"
        elif self.id_expires_on <= today:
            yield "id_expires_on", "document_expired", "the document has run out: submit one that is valid"

    def _wrong_person(self, today: date) -> Iterator[tuple[str, str, str]]:
        age = _years(self.date_of_birth, today)
        if not 0 <= age <= OLDEST:
            yield "date_of_birth", "invalid_date_of_birth", "give your date of birth as the document shows it"
        elif age < ADULT:
            yield "date_of_birth", "under_age", f"PenPay is for people of {ADULT} years and older"
        for name in ("nationality", "residence"):
            if getattr(self, name) not in COUNTRIES:
                yield name, "invalid_country", "give the country by its two letters in ISO 3166-1, as in KE"
        if (self.id_type is IdType.NATIONAL_ID and self.nationality != HOME) or (
            self.id_type is IdType.ALIEN_CARD and self.nationality == HOME
        ):
            how = "the national_id is a Kenyan citizen's, the alien_card a foreigner's: else submit a passport"
            yield "nationality", "document_of_others", how
        if self.kra_pin and not KRA_PIN.fullmatch(self.kra_pin):
            yield "kra_pin", "invalid_kra_pin", "give the KRA PIN as in A123456789B, or leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class KycSnapshot:
    """One submission as it was given, never changed; `version` counts a customer's from 1, `full_name` is of then."""

    id: UUID
    user_id: UserId
    version: int
    full_name: str = field(repr=False)
    facts: KycFacts
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class CleanImage:
    """A JPEG that we wrote ourselves, from the pixels of what was sent."""

    content: bytes = field(repr=False)
    width: int
    height: int


def day_in_kenya(at: datetime) -> date:
    """The calendar day there."""
    return at.astimezone(NAIROBI).date()


def refuse_too_many_refusals(taken: int, unreadable: int) -> None:
    """After so many documents of others, or images that can't be read, within a day. Raises `TooManyKycRefusals`."""
    if taken >= MOST_TAKEN or unreadable >= MOST_UNREADABLE:
        raise TooManyKycRefusals(
            "these documents could not be used: try again tomorrow, or write to support", retry_after=24 * 3600
        )


def _years(since: date, today: date) -> int:
    """Whole years of age. Who was born on 29 February has a birthday on 1 March in other years."""
    return today.year - since.year - ((today.month, today.day) < (since.month, since.day))


def _plain(text: str) -> str:
    """In capitals, without spaces and hyphens; other alphabets stay as they are, and are refused later."""
    return re.sub(r"[ -]", "", text).upper() if text.isascii() else text

"""How often anybody may try the doors that stand open to all: signing in, resetting a password, registering.

What is tried is counted before it costs anything: before a hash, an audit row, a text. A customer's known device counts
in a counter of its own, so that strangers who try that customer's name, or flood everything, never lock it out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from identity.domain.contact import Email
from identity.domain.ports import Secrets, UserRepository
from shared_kernel.domain.errors import TooManyRequests
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.rate_limits import Counter, Limiter, counters_of_address


@dataclass(frozen=True)
class Door:
    """The counters of a try. An identifier counts as it was given, whether it is somebody's or nobody's."""

    limiter: Limiter
    users: UserRepository
    secrets: Secrets
    address: Callable[[], str]  # whence the request at hand comes

    def known_device(self, identifier: Phone | Email | None, cookie: str) -> UUID | None:
        """The device of the customer so named that this cookie (`id.secret`) proves. Without a cookie no query, and
        with one the same query whoever is named.
        """
        id, secret_hash = cookie_parts(cookie, self.secrets)
        if id is None or identifier is None or not self.users.is_device_of(identifier, id, secret_hash):
            return None
        return id

    def may_send(self, device_cookie: str) -> None:
        """Any request without a token of ours. Raises `TooManyRequests`.

        Where its address has sent too much, a customer's known device goes on by itself: its neighbours behind a
        carrier's address must not keep it from refreshing its session. Only then it is looked for, by one query; the
        cookies that prove nothing are counted, so that a flood of them costs few.
        """
        try:
            self.limiter.take(*self._here("api"))
        except TooManyRequests:
            id, secret_hash = cookie_parts(device_cookie, self.secrets)
            if id is None:
                raise
            unknown = counters_of_address("api.address_unknown", self.address())
            self.limiter.take(*unknown)
            if not self.users.is_device_of(None, id, secret_hash):
                raise
            self.limiter.give_back(*unknown)
            self.limiter.take(self._device("api", id))

    def may_sign_in(self, identifier: Phone | Email | None, device: UUID | None) -> None:
        """`device`: known to be this customer's. Raises `TooManyRequests`."""
        self.limiter.take(*self._tried("login", identifier, device))

    def signed_in(self, identifier: Phone | Email, device: UUID | None) -> None:
        """The password was right: these tries were no guesses. What the address and all have tried stays counted, and
        so do all tries of this device or identifier, for each costs a hash.
        """
        self.limiter.forget(*([self._device("login", device)] if device else _guesses("login", identifier)))

    def may_ask_for_reset(self, identifier: Phone | Email | None, device: UUID | None) -> None:
        """Raises `TooManyRequests`."""
        self.limiter.take(*self._tried("reset", identifier, device))

    def may_reset(self, identifier: Phone | Email | None, device: UUID | None) -> None:
        """Each costs a hash, and may guess a code. Raises `TooManyRequests`."""
        self.limiter.take(*self._tried("reset_confirm", identifier, device))

    def may_register(self) -> None:
        """Each tells whether a number is a customer's. Raises `TooManyRequests`."""
        self.limiter.take(*self._here("registration"), Counter("registration.all"))

    def may_ask_for_code(self, user: UserId) -> None:
        """Whatever it is for; counts for who is signed in, so that nobody's neighbours have to wait for them.

        Raises `TooManyRequests`.
        """
        self.limiter.take(Counter("codes.user", str(user)))

    def may_change_deriv_login(self, user: UserId) -> None:
        """Each asks Deriv something, or begins what will. Raises `TooManyRequests`."""
        self.limiter.take(Counter("deriv_logins.user", str(user)))

    def _tried(self, what: str, identifier: Phone | Email | None, device: UUID | None) -> list[Counter]:
        if device is not None:
            own = [self._device(what, device)]
            return [*own, Counter("login.device_all", str(device))] if what == "login" else own
        named = _guesses(what, identifier) if identifier else []
        if named and what == "login":
            named.append(Counter("login.identifier_all", named[0].of))
        return [*named, *self._here(what), Counter(f"{what}.all")]

    def _device(self, what: str, device: UUID) -> Counter:
        return Counter(f"{what}.device", str(device))

    def _here(self, what: str) -> list[Counter]:
        return counters_of_address(f"{what}.address", self.address())


def _guesses(what: str, identifier: Phone | Email) -> list[Counter]:
    """What a right password clears."""
    of = identifier.address if isinstance(identifier, Email) else identifier.number
    names = ["login.identifier", "login.identifier_day"] if what == "login" else [f"{what}.identifier"]
    return [Counter(name, of) for name in names]


def cookie_parts(cookie: str, secrets: Secrets) -> tuple[UUID | None, str]:
    """The device's id, None for what is no cookie of ours, and its secret's hash."""
    id, _, secret = cookie.partition(".")
    try:
        return UUID(id), secrets.fingerprint(secret)
    except ValueError:
        return None, ""

"""What can be wrong with a password, and with who gives it."""

from shared_kernel.domain.errors import TooManyRequests, Unauthenticated, Unprocessable


class WeakPassword(Unprocessable):
    """A password that is too short, too common, or made of what the account says of its owner."""


class WrongPassword(Unprocessable):
    """Not the present password."""


class InvalidCredentials(Unauthenticated):
    """Unknown user, wrong password or closed account: the three are never told apart."""


class SignInBusy(TooManyRequests):
    """All turns for hashing are taken."""

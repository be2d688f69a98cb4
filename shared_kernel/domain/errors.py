"""The base classes of every broken rule: each knows its stable `code` and its HTTP status."""

import re
from typing import Any, ClassVar

ILLEGIBLE = "[cannot be decrypted]"  # stands where an encrypted text would, once its key is gone or it was altered


class DomainError(Exception):
    """A rule that was broken.

    `code` is the class name in snake_case (stable: clients depend on it), `status` the HTTP status that its base class
    gives, `detail` a sentence that says what to do. `extra` is added to the problem document as it is: never personal
    data.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "domain_error"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequest(DomainError):
    """The request can't be understood as it is."""

    status = 400


class Unauthenticated(DomainError):
    """Nobody, or nobody that we know, is asking."""

    status = 401


class Forbidden(DomainError):
    """Known, but not allowed."""

    status = 403


class NotFound(DomainError):
    """No such thing, or somebody else's: the two are never told apart."""

    status = 404


class Conflict(DomainError):
    """Not in this state."""

    status = 409


class Unprocessable(DomainError):
    """Understood, and against a rule."""

    status = 422


class TooManyRequests(DomainError):
    """Slow down; `extra["retry_after"]` holds seconds when they are known."""

    status = 429


class Unavailable(DomainError):
    """Nothing is wrong with the request: try again later."""

    status = 503

"""What a customer signs in from, and what can be wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared_kernel.domain.errors import Conflict, Forbidden, NotFound
from shared_kernel.domain.identifiers import DeviceId


class DeviceLimitReached(Conflict):
    """Every slot for a device is taken; `extra["devices"]` lists who takes them, for whoever gave the second factor."""

    def __init__(self, limit: int, devices: Sequence["Device"] | None) -> None:
        taken = f"you are signed in on {limit} devices already: "
        if devices is None:
            super().__init__(f"{taken}remove one of them first, from one of them")
            return
        super().__init__(
            f"{taken}remove one of them, or send the same sign-in again with its id as `replace_device`; the code is "
            "still good",
            devices=[
                known.shown() | {"last_seen_at": known.last_seen_at.isoformat().replace("+00:00", "Z")}
                for known in devices
            ],
        )


class DeviceCodeRequired(Forbidden):
    """The password is right, the device unknown: it takes a code of the authenticator; where none is in use, the one
    that was `sent` to the verified phone.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__(
            "this device is new to your account: a code was sent by SMS to your phone; send the same sign-in again "
            "with it as `code`"
            if sent
            else "this device is new to your account: send the same sign-in again with the code that your "
            "authenticator shows now as `code`; if you have lost it, ask support"
        )


class DeviceNotFound(NotFound):
    """No such device, or it is somebody else's."""


@dataclass(kw_only=True, eq=False)
class Device:
    """What a customer signs in from. `slot` is its place under the device limit, `secret_hash` proves its cookie."""

    id: DeviceId
    client_id: str
    name: str
    platform: str
    secret_hash: str = field(repr=False)
    slot: int | None
    created_at: datetime
    last_seen_at: datetime
    revoked_at: datetime | None = None

    def shown(self) -> dict[str, str]:
        """As the customer is told of it."""
        return {"id": self.client_id, "name": self.name, "platform": self.platform}

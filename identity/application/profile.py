"""What customers change of themselves: name and address."""

from dataclasses import dataclass, field

from identity.domain.contact import Address
from identity.domain.ports import UserRepository
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import Clock, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class ChangeProfile:
    """None leaves as it is."""

    user_id: UserId
    full_name: str | None = field(repr=False, default=None)
    address: Address | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Profiles:
    """The use case of one's own page."""

    users: UserRepository
    unit_of_work: UnitOfWork
    clock: Clock

    def change(self, command: ChangeProfile) -> None:
        """All of it or nothing.

        Raises `InvalidName`, `NameIsVerified`, `DerivNameMismatch`, `AccountFrozen`, `UserNotFound`.
        """
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(command.user_id)
            if command.full_name is not None:
                user.rename(command.full_name, at=at)
            if command.address is not None and command.address != self.users.address_of(user.id):
                user.move(command.address, at=at)
            self.users.save(user)

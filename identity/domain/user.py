"""The User aggregate: who a customer is, their devices, their standing and their Deriv login; and what can be wrong."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from identity.domain.contact import Address, Email, full_name
from identity.domain.device import Device, DeviceLimitReached, DeviceNotFound
from identity.domain.kyc import Kyc, KycStatus, same_person
from identity.domain.kyc_snapshot import KycFacts, KycSnapshot, KycUnderReview
from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unprocessable
from shared_kernel.domain.events import Aggregate, UserRegistered
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.requests import DerivPlatform

UNUSABLE = "!"  # a password's hash that no password has
UNPROVEN_KEPT = timedelta(days=1)  # how long nobody else may register with a contact that was not proven
DERIV_CURRENCY = "USD"  # what PenPay pays out at Deriv


class UserNotFound(NotFound):
    """No such user."""


class NameIsVerified(Conflict):
    """The name is what documents prove, or are being looked at for: it isn't changed by hand any more."""


class ContactTaken(Conflict):
    """The phone number or e-mail address belongs to an account; whose is not said."""


class AccountInUse(Conflict):
    """An account is not closed while a payment of it is on its way, is looked after, or something is owed."""


class AlreadyRegistered(Conflict):
    """The phone or the e-mail address belongs to an account; which of them is not said."""


class PhoneAlreadyVerified(Conflict):
    """There is nothing to prove."""


class PhoneNotVerified(Forbidden):
    """The phone number is not proven yet."""


class EmailAlreadyVerified(Conflict):
    """There is nothing to prove."""


class AccountFrozen(Conflict):
    """The account is under review: nothing of it can be changed."""


class SubjectStillActive(Conflict):
    """Money of theirs is on its way, or owed: nothing is erased before that is settled."""


class DerivLoginNotFound(NotFound):
    """No Deriv login is bound."""


class DerivLoginTaken(Conflict):
    """This Deriv account is another customer's: one account, one customer."""


class DerivNameMismatch(Unprocessable):
    """Deriv knows the account's holder by a name that isn't the customer's."""


class DerivLoginUnsuitable(Unprocessable):
    """A demo account, or one in a currency that PenPay does not pay out."""


@dataclass(kw_only=True, eq=False)
class DerivBinding:
    """A Deriv account that its token proved to be the customer's; `token` is None once it was stored."""

    id: UUID
    platform: DerivPlatform
    account: str = field(repr=False)
    currency: str
    full_name: str = field(repr=False)
    name_matches: bool
    token: str | None = field(repr=False, default=None)
    refresh_token: str = field(repr=False, default="")  # as `token`; empty where there is none
    expires_at: datetime | None = None  # when the token ends; None: when Deriv says so
    bound_at: datetime
    checked_at: datetime
    revoked_at: datetime | None = None


@dataclass(eq=False, kw_only=True)
class User(Aggregate):
    """Somebody who may sign in; what it `notes` becomes audit rows in the commit of the state."""

    id: UserId
    phone: Phone | None
    email: Email | None
    full_name: str = field(repr=False)
    password_hash: str = field(repr=False)
    created_at: datetime
    is_active: bool = True
    frozen_at: datetime | None = None
    token_epoch: int = 0
    phone_verified_at: datetime | None = None
    phone_changed_at: datetime | None = None  # when another took the place of the number of the registration, or later
    email_verified_at: datetime | None = None
    totp_removed_at: datetime | None = None  # when support last took the authenticator away
    closed_at: datetime | None = None  # when the relationship ended
    restricted_at: datetime | None = None  # since then only the law keeps what is left, and nobody signs in
    erase_after: datetime | None = None  # when that goes, too; None: nothing is left
    kyc: Kyc = field(default_factory=Kyc)
    devices: list[Device] = field(default_factory=list)  # the active ones, and those revoked since it was loaded
    deriv_login: DerivBinding | None = None  # the active one, or one revoked since it was loaded
    renamed_at: datetime | None = None  # since it was loaded
    moved_to: tuple[Address, datetime] | None = None  # since it was loaded
    notes: list[AuditRecord] = field(default_factory=list, init=False, repr=False)
    contacts_changed: bool = field(default=False, init=False, repr=False)  # since it was loaded

    @classmethod
    def register(cls, id: UserId, phone: Phone, email: Email, name: str, password_hash: str, *, at: datetime) -> "User":
        """A new customer, of whom nothing is proven yet."""
        user = cls(
            id=id, phone=phone, email=email, full_name=full_name(name), password_hash=password_hash, created_at=at
        )
        user.record(UserRegistered(user_id=id, occurred_at=at))
        user.note("user.registered", at=at)
        return user

    def note(
        self, action: str, *, at: datetime, before: str = "", after: str = "", why: str = "", **details: str
    ) -> None:
        """Adds an audit row about this user. No personal data in it."""
        self.notes.append(AuditRecord(action, "user", str(self.id), at, before, after, why, details))

    def pull_notes(self) -> list[AuditRecord]:
        """Hands over the audit rows since the last call."""
        notes, self.notes = self.notes, []
        return notes

    def phone_proven(self, phone: Phone, *, at: datetime) -> None:
        """A code sent to `phone` came back; a number since changed proves nothing.

        Raises `PhoneAlreadyVerified`, and what `may_change` does.
        """
        self.may_change()
        if phone == self.unproven_phone():
            self.phone_verified_at = at
            self.note("user.phone_verified", at=at)

    def unproven_phone(self) -> Phone:
        """The one to prove. Raises `PhoneAlreadyVerified` when there is nothing to prove."""
        if self.phone is None:
            raise PhoneAlreadyVerified("there is no phone number to verify: give one by POST me/phone")
        if self.phone_verified_at is not None:
            raise PhoneAlreadyVerified("the phone number is verified already")
        return self.phone

    def email_proven(self, email: Email, *, at: datetime) -> None:
        """A code sent to `email` came back; one since changed proves nothing.

        Raises `EmailAlreadyVerified`, and what `may_change` does.
        """
        self.may_change()
        if email == self.unproven_email():
            self.email_verified_at = at
            self.note("user.email_verified", at=at)

    def unproven_email(self) -> Email:
        """The one to prove. Raises `EmailAlreadyVerified` when there is nothing to prove."""
        if self.email is None:
            raise EmailAlreadyVerified("there is no e-mail address to verify: give one by POST me/email")
        if self.email_verified_at is not None:
            raise EmailAlreadyVerified("the e-mail address is verified already")
        return self.email

    def proven_phone(self) -> Phone | None:
        """The verified one."""
        return self.phone if self.phone_verified_at is not None else None

    def proven_email(self) -> Email | None:
        """The verified one."""
        return self.email if self.email_verified_at is not None else None

    def known_words(self) -> list[str]:
        """What the account says of its owner: no password is made of it."""
        phone = [self.phone.number, self.phone.number[3:]] if self.phone else []
        return [*phone, *([self.email.address] if self.email else []), self.full_name]

    @property
    def is_open(self) -> bool:
        """Whether `may_change` raises nothing."""
        return self.is_active and self.frozen_at is None

    def may_change(self, refusal: str = "it can't be changed now") -> None:
        """Raises `UserNotFound` once it was closed or erased, also meanwhile; `AccountFrozen`, with that `refusal`."""
        if not self.is_active:
            raise UserNotFound("no such user")
        if self.frozen_at is not None:
            raise AccountFrozen(f"the account is under review: {refusal}")

    def change_phone(self, phone: Phone, *, at: datetime) -> None:
        """A code sent to `phone` came back. Raises what `may_change` does."""
        self.may_change()
        self.phone, self.phone_verified_at, self.phone_changed_at, self.contacts_changed = phone, at, at, True
        self.note("user.phone_changed", at=at)

    def change_email(self, email: Email, *, at: datetime) -> None:
        """A code sent to `email` came back. Raises what `may_change` does."""
        self.may_change()
        self.email, self.email_verified_at, self.contacts_changed = email, at, True
        self.note("user.email_changed", at=at)

    def may_lose(self, contact: Phone | Email, *, to_proof: bool, at: datetime) -> bool:
        """Whether somebody else may have this contact, which was never proven: who proved it (`to_proof`) at once, who
        registers with it once the time to prove it is over. Not what an account under review holds, nor one that proved
        nothing and of which more is known all the same.
        """
        unproven = [None if self.proven_phone() else self.phone, None if self.proven_email() else self.email]
        nothing_proven = self.proven_phone() is None and self.proven_email() is None
        more_is_known = self.kyc.status is not KycStatus.NONE or self.deriv_login is not None
        if contact not in unproven or self.frozen_at is not None or (nothing_proven and more_is_known):
            return False
        return to_proof or at >= self.created_at + UNPROVEN_KEPT

    def lose(self, contact: Phone | Email, *, at: datetime, why: str) -> None:
        """What `may_lose` allows. An account that is left with no contact has ended, and nothing of it is kept."""
        if contact == self.phone:
            self.phone = None
        else:
            self.email = None
        self.contacts_changed = True
        self.note("user.contact_lost", at=at, why=why, channel="phone" if isinstance(contact, Phone) else "email")
        if self.phone is None and self.email is None and self.is_active:
            self.close(keep_until=at, at=at)
            self.end_all_sessions(at=at, why="no contact is left")

    def change_password(self, password_hash: str, *, at: datetime, why: str) -> None:
        """`why` says by what right. Raises what `may_change` does."""
        self.may_change()
        self.password_hash = password_hash
        self.note("user.password_changed", at=at, why=why)

    def lose_authenticator(self, *, at: datetime, removal: UUID) -> None:
        """Support takes it away, as two people decided; payouts wait from now on. Raises what `may_change` does."""
        self.may_change()
        self.totp_removed_at = at
        self.note("totp.taken_away", at=at, removal=str(removal))

    def close(self, *, keep_until: datetime, at: datetime) -> None:
        """Nobody signs in any more, nothing is paid; its Deriv login is forgotten, and all the rest after `keep_until`.

        Raises what `may_change` does.
        """
        self.may_change()
        if self.deriv_login is not None:
            self.unbind_deriv(at=at)
        self.is_active, self.closed_at, self.erase_after = False, at, keep_until
        self.note("user.closed", at=at, kept_until=keep_until.date().isoformat())

    # devices and sessions

    def active_devices(self) -> list[Device]:
        """Those that hold a slot, oldest first."""
        return sorted((d for d in self.devices if d.revoked_at is None), key=lambda d: d.created_at)

    def recognise(self, device: UUID, secret_hash: str, *, at: datetime) -> Device | None:
        """The active device whose cookie this is, now seen."""
        for known in self.active_devices():
            if known.id == device and known.secret_hash == secret_hash:
                known.last_seen_at = at
                return known
        return None

    def replace(self, client_id: str, *, at: datetime) -> None:
        """Frees the slot of the device that goes by this id, for one that is about to be enrolled: by password and
        second factor, for whoever has none of the others at hand. Raises `DeviceNotFound`.
        """
        self.revoke(self.device_of(client_id), at=at, why="replaced when signing in")

    def device_of(self, client_id: str) -> Device:
        """The active one that goes by this id. Raises `DeviceNotFound`."""
        for known in self.active_devices():
            if known.client_id == client_id:
                return known
        raise DeviceNotFound("no such device")

    def enrol(self, device: Device, *, limit: int, is_proven: bool = False) -> Device:
        """Gives `device` the first free slot. A device of the same client id gives up its own: its cookie was lost.

        `is_proven`: by a second factor, without which nobody is told what devices there are. Raises
        `DeviceLimitReached`.
        """
        for known in self.active_devices():
            if known.client_id == device.client_id:
                self.revoke(known, at=device.created_at, why="enrolled anew")
        taken = {known.slot for known in self.active_devices()}
        free = [slot for slot in range(1, limit + 1) if slot not in taken]
        if not free:
            raise DeviceLimitReached(limit, self.active_devices() if is_proven else None)
        device.slot = free[0]
        self.devices.append(device)
        self.note("device.added", at=device.created_at, device=str(device.id), platform=device.platform)
        return device

    def revoke(self, device: Device, *, at: datetime, why: str) -> None:
        """Frees its slot; its sessions end because the device did."""
        device.slot, device.revoked_at = None, at
        self.note("device.revoked", at=at, why=why, device=str(device.id))

    def end_all_sessions(self, *, at: datetime, why: str) -> None:
        """Every token that was issued so far stops at once."""
        self.token_epoch += 1
        self.note("user.sessions_ended", at=at, why=why)

    def restrict(self, *, until: datetime | None, at: datetime, why: str) -> None:
        """Nobody signs in any more, on no device; what is left is kept `until` then. Raises `AccountFrozen`."""
        if self.frozen_at is not None:
            raise AccountFrozen("the account is under review: nothing of it can be erased now")
        if self.deriv_login is not None and self.deriv_login.revoked_at is None:
            self._end_deriv_login(self.deriv_login, at=at)
        self.is_active, self.restricted_at, self.erase_after = False, at, until
        self.closed_at = self.closed_at or at
        self.email = self.email_verified_at = None
        self.password_hash = UNUSABLE
        self.end_all_sessions(at=at, why="erased")
        for device in self.active_devices():
            self.revoke(device, at=at, why="erased")
        self.note("user.erased", at=at, why=why, kept_until=until.date().isoformat() if until else "")

    # standing

    def decide_kyc(
        self, status: KycStatus, *, tier: str | None, expires_at: datetime | None, at: datetime, why: str
    ) -> None:
        """Raises `IllegalKycStep`, `InvalidTier`."""
        before, self.kyc = self.kyc, self.kyc.to(status, tier=tier, at=at, expires_at=expires_at)
        self.note(
            "user.kyc", at=at, before=f"{before.status} {before.tier}", after=f"{status} {self.kyc.tier}", why=why
        )

    def refuse_kyc(self) -> None:
        """Raises what `may_change` does, `PhoneNotVerified`, `KycUnderReview` while no documents can be submitted."""
        self.may_change("documents can't be submitted now")
        if self.phone is None or self.phone_verified_at is None:
            raise PhoneNotVerified("verify your phone number first: post to me/phone-verification")
        if self.kyc.status is KycStatus.SUBMITTED:
            raise KycUnderReview("your documents are being reviewed: wait for the decision")

    def submit_kyc(self, facts: KycFacts, *, id: UUID, version: int, at: datetime) -> KycSnapshot:
        """`facts` are checked already. The tier stays until the decision. Raises what `refuse_kyc` does."""
        self.refuse_kyc()
        before, self.kyc = self.kyc, self.kyc.to(KycStatus.SUBMITTED, tier=None, at=at)
        self.note(
            "user.kyc", at=at, before=f"{before.status} {before.tier}", after=f"{self.kyc.status} {self.kyc.tier}",
            why="documents submitted", snapshot=str(id), version=str(version),
        )  # fmt: skip
        return KycSnapshot(
            id=id, user_id=self.id, version=version, full_name=self.full_name, facts=facts, submitted_at=at
        )

    # profile

    def rename(self, name: str, *, at: datetime) -> None:
        """Until documents are submitted, and after they were rejected; the same name again changes nothing.

        Raises `InvalidName`, `NameIsVerified`, what `may_change` does, and `DerivNameMismatch` while a Deriv login in
        the former name is bound.
        """
        name = full_name(name)
        if name == self.full_name:
            return
        self.may_change("the name can't be changed now")
        if self.kyc.status is KycStatus.SUBMITTED:
            raise NameIsVerified("your documents are being reviewed under this name: wait for the decision")
        if self.kyc.status not in {KycStatus.NONE, KycStatus.REJECTED}:
            raise NameIsVerified("this name was verified: write to support, with a document that shows the new one")
        if self.deriv_login is not None and not same_person(name, self.deriv_login.full_name):
            raise DerivNameMismatch("your Deriv login is in another name: remove it first, with DELETE me/deriv-login")
        self.full_name, self.renamed_at = name, at
        self.note("user.renamed", at=at)

    def move(self, address: Address, *, at: datetime) -> None:
        """It counts from now on; former ones are kept. Raises what `may_change` does."""
        self.may_change("the address can't be changed now")
        self.moved_to = address, at
        self.note("user.address_changed", at=at, country=address.country)

    # Deriv

    def bind_deriv(self, binding: DerivBinding, *, is_virtual: bool) -> None:
        """Deposits go to it now. Raises `DerivLoginUnsuitable`, `DerivNameMismatch`, what `may_change` does."""
        self.may_change("the Deriv login can't be changed now")
        if is_virtual:
            raise DerivLoginUnsuitable("this token is for a demo account: give one of your real account")
        if binding.currency != DERIV_CURRENCY:
            raise DerivLoginUnsuitable(
                f"this account is not in {DERIV_CURRENCY}: give a token of your {DERIV_CURRENCY} account"
            )
        if not same_person(self.full_name, binding.full_name):
            raise DerivNameMismatch(
                "Deriv knows this account's holder by another name than yours: only your own account can be bound"
            )
        binding.name_matches = True
        self.deriv_login = binding
        self.note("deriv_login.bound", at=binding.bound_at, platform=binding.platform, deriv_login=str(binding.id))

    def unbind_deriv(self, *, at: datetime) -> None:
        """Its token is forgotten; the account stays this customer's.

        Raises `DerivLoginNotFound`, and what `may_change` does.
        """
        self.may_change("the Deriv login can't be changed now")
        if self.deriv_login is None:
            raise DerivLoginNotFound("no Deriv login is bound")
        self._end_deriv_login(self.deriv_login, at=at)

    def _end_deriv_login(self, bound: DerivBinding, *, at: datetime) -> None:
        bound.revoked_at = at
        self.note("deriv_login.unbound", at=at, deriv_login=str(bound.id))

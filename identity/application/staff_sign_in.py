"""Staff sign in with a password and a second factor, enrol that factor, and get it taken away when it is lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from identity.domain.credentials import InvalidCredentials
from identity.domain.ports import FactorRepository, Passwords, Secrets, SignInTries, StaffDirectory
from identity.domain.staff_sign_in import (
    MOST_TRIES,
    RECOVERY_CODES,
    Factor,
    FactorConfirmed,
    FactorMissing,
    Seat,
    SignInLocked,
    StaffMember,
    WrongFactor,
    normal,
    shown,
)
from identity.domain.user import UserNotFound
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork

REFUSED = "Name, password or code is wrong."


@dataclass(frozen=True)
class StaffSignIn:
    """The use cases of signing in to the back-office. None says whether a name is somebody's."""

    staff: StaffDirectory
    factors: FactorRepository
    tries: SignInTries
    passwords: Passwords
    secrets: Secrets
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource
    new_secret: Callable[[], str]

    def password(self, name: str, password: str, browser_of: Callable[[UserId], str], address: str) -> StaffMember:
        """The first step. `browser_of` names this browser if that member of staff signed in with it before.

        Raises `InvalidCredentials` (as slow for nobody as for somebody), `SignInLocked`, `SignInBusy`.
        """
        given = name.strip().lower()
        member = self.staff.named(given)
        seat = Seat(address=address, browser=browser_of(member.id) if member else "")
        with self._counted(member, seat, given) as judged:
            good = self.passwords.matches(password, member.password_hash if member else None)
            if member is None or not good:
                judged.wrong(InvalidCredentials(REFUSED), "wrong password" if member else "unknown name")
        assert member is not None
        with self.unit_of_work():  # the other factor may still be guessed at: what it counted stays
            self._give_back(judged.keys)
        return member

    def factor(self, member: StaffMember, code: str, seat: Seat) -> UUID:
        """The second step: a code of the authenticator, or a recovery code. The id of the factor.

        Raises `WrongFactor`, `SignInLocked`, `FactorMissing`.
        """
        with self._counted(member, seat) as judged:
            with self.unit_of_work():
                factor = self.factors.of(member.id)
                if factor is None or factor.confirmed_at is None:
                    raise FactorMissing("enrol a second factor first")
                if how := self._spent(factor, code):
                    self.factors.save(factor)
                    self.tries.forget([key for key in judged.keys if not key.startswith("address:")])
                    self._note("staff.signed_in", member.id, after=how)
            if not how:
                judged.wrong(WrongFactor(REFUSED), "wrong code")
        return factor.id

    def _spent(self, factor: Factor, code: str) -> str:
        """By what it was proven; empty if it was not."""
        at = self.clock()
        if factor.takes(code, at=at):
            return "totp"
        left = self.factors.spend_recovery_code(factor.id, self._hash(factor.id, code), at=at)
        return "recovery code" if left else ""

    def has_factor(self, user_id: UserId) -> bool:
        """Whether a confirmed factor is there; without it the only way leads to enrolment."""
        return self.factors.confirmed(user_id) is not None

    def stands(self, user_id: UserId, factor_id: UUID) -> bool:
        """Whether a session that was proven by this factor may go on: it was not taken away since. One query."""
        return self.factors.confirmed(user_id) == factor_id

    def enrol(self, user_id: UserId, current: UUID | None = None) -> Factor:
        """The factor to confirm: that of this sign-in (`current`), else a new one, and any other is void.

        So a secret that somebody else was shown is never the one that is confirmed. Raises `FactorConfirmed`.
        """
        with self.unit_of_work():
            factor = self.factors.of(user_id)
            if factor is not None and factor.confirmed_at is not None:
                raise FactorConfirmed("a second factor is enrolled already")
            if factor is None or factor.id != current:
                factor = Factor(id=self.ids(), user_id=user_id, secret=self.new_secret(), created_at=self.clock())
                self.factors.replace(factor)
        return factor

    def confirm(self, user_id: UserId, current: UUID, code: str) -> list[str]:
        """The first code: from now on the factor counts. Ten recovery codes, which are never shown again.

        Raises `WrongFactor` (also once another sign-in began to enrol), `FactorConfirmed`.
        """
        with self.unit_of_work():
            factor, at = self.factors.of(user_id), self.clock()
            if factor is not None and factor.confirmed_at is not None:
                raise FactorConfirmed("a second factor is enrolled already")
            if factor is None or factor.id != current or not factor.takes(code, at=at):
                raise WrongFactor("This is not the code that the authenticator shows now: look at its clock.")
            factor.confirmed_at = at
            self.factors.save(factor)
            codes = self._new_codes(factor)
            self._note("staff.factor_enrolled", user_id)
        return codes

    def new_recovery_codes(self, member: StaffMember, code: str, seat: Seat) -> list[str]:
        """Ten new ones for a code of the authenticator; the old ones are void.

        Raises `WrongFactor`, `SignInLocked`, `FactorMissing`.
        """
        with self._counted(member, seat) as judged:
            with self.unit_of_work():
                factor = self.factors.of(member.id)
                if factor is None or factor.confirmed_at is None:
                    raise FactorMissing("enrol a second factor first")
                if good := factor.takes(code, at=self.clock()):
                    self.factors.save(factor)
                    codes = self._new_codes(factor)
                    self._give_back(judged.keys)
                    self._note("staff.recovery_codes_made", member.id)
            if not good:
                judged.wrong(WrongFactor(REFUSED), "wrong code for recovery codes")
        return codes

    def _new_codes(self, factor: Factor) -> list[str]:
        codes = [self.secrets.recovery_code() for _ in range(RECOVERY_CODES)]
        self.factors.replace_recovery_codes(factor.id, [self._hash(factor.id, code) for code in codes])
        return [shown(code) for code in codes]

    def _hash(self, factor_id: UUID, code: str) -> str:
        return self.secrets.recovery_fingerprint(factor_id, normal(code))

    def old_password(self, member: StaffMember, password: str, seat: Seat) -> None:
        """Whether somebody who is signed in knows the password that they want to change, for a session may be stolen.

        Counted as tries of signing in are. Raises `InvalidCredentials`, `SignInLocked`, `SignInBusy`.
        """
        with self._counted(member, seat, refused="staff.password_refused") as judged:
            if not self.passwords.matches(password, member.password_hash):
                judged.wrong(InvalidCredentials("This is not your present password."), "wrong old password")
        with self.unit_of_work():
            self._give_back(judged.keys)

    def change_password(self, user_id: UserId, save: Callable[[], object]) -> None:
        """A password of their own choice, stored by `save`, once `old_password` let them; their sessions elsewhere end,
        for they are bound to it.
        """
        with self.unit_of_work():
            save()
            self._note("staff.password_changed", user_id)

    def ended(self, user_id: UserId, why: str) -> None:
        """A session of staff is over: by signing out, or because it lasted too long or lay idle."""
        with self.unit_of_work():
            self._note("staff.session_ended", user_id, why=why)

    def unlock(self, name: str, *, why: str, dry_run: bool = False) -> StaffMember:
        """The tries of this member of staff, in unknown browsers, are forgotten. Raises `UserNotFound`."""
        member = self._named(name)
        if dry_run:
            return member
        with self.unit_of_work():
            self.tries.forget([f"account:{member.id}"])
            self._note("staff.unlocked", member.id, why=why)
        return member

    def reset_factor(self, name: str, *, why: str, dry_run: bool = False) -> StaffMember:
        """Who lost authenticator and recovery codes enrols anew; their sessions end. Raises `UserNotFound`."""
        member = self._named(name)
        if dry_run:
            return member
        with self.unit_of_work():
            self.factors.of(member.id)  # under its lock
            self.factors.remove(member.id)
            self._note("staff.factor_reset", member.id, why=why)
        return member

    def _named(self, name: str) -> StaffMember:
        member = self.staff.named(name.strip().lower())
        if member is None:
            raise UserNotFound("nobody of staff has this name")
        return member

    @contextmanager
    def _counted(
        self, member: StaffMember | None, seat: Seat, given: str = "", *, refused: str = "staff.sign_in_failed"
    ) -> Iterator["_Judged"]:
        """Counts a try before it is judged; a wrong one is audited as `refused`. What breaks off without a verdict is
        given back.

        Raises `SignInLocked`.
        """
        keys, at = seat.counted_under(member, given), self.clock()
        with self.unit_of_work():
            counted = self.tries.of(keys, at=at)
            until = max((until for tries in counted.values() if (until := tries.locked_until(at))), default=None)
            if until is None:
                for tries in counted.values():
                    tries.add(at)
                self.tries.save(counted)
        if until is not None:
            minutes = -((at - until) // timedelta(minutes=1))
            raise SignInLocked(f"Too many tries: wait {minutes} min.", retry_after=(until - at).total_seconds())
        judged = _Judged(keys)
        try:
            yield judged
        except Exception:
            if not judged.why:
                with self.unit_of_work():
                    self._give_back(keys)
                raise
            with self.unit_of_work():
                user = member.id if member else None
                self._note(refused, user, why=judged.why)
                if any(tries.count >= MOST_TRIES for tries in counted.values()):
                    self._note("staff.locked_out", user, why=", ".join(key.partition(":")[0] for key in keys))
            raise

    def _give_back(self, keys: Sequence[str]) -> None:
        counted = self.tries.of(keys, at=self.clock())
        for tries in counted.values():
            tries.give_back()
        self.tries.save(counted)

    def _note(self, action: str, user: UserId | None, *, why: str = "", after: str = "") -> None:
        target = str(user) if user else "unknown"
        self.audit.append([AuditRecord(action, "user", target, self.clock(), after=after, why=why)])


@dataclass
class _Judged:
    """A try that was counted, and why it was a wrong one."""

    keys: Sequence[str]
    why: str = ""

    def wrong(self, refusal: InvalidCredentials, why: str) -> None:
        """Raises the refusal; the try stays counted."""
        self.why = why
        raise refusal

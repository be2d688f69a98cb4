"""Withdrawals as rows, with whatever entries, reservation and audit row a test wants: also such as must not be."""

from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

from payments import models
from payments.facade import deposits
from payments.tests.factories import AGENT, CHOSEN, MID, a_rate, kes, usd
from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.facade import ledger

B2C = "600000"
SENT, PAYOUT, FEE = usd(1_000), kes(1265), kes(50)
SPLIT = a_rate(at=now(), rate=MID - 3).split_withdrawal(SENT)
RESERVED = {"CREATED", "UNDER_REVIEW", "DERIV_DEBIT_SENT", "DERIV_DEBITED", "RATE_LOCKED", "MPESA_DISBURSING"}


@dataclass(frozen=True)
class Withdrawal:
    """A stored one; each of its verbs posts in the caller's unit of work."""

    id: TransactionId
    user_id: UserId

    @property
    def who(self) -> tuple[TransactionId, UserId]:
        return self.id, self.user_id

    def debited(self):
        ledger.post_withdrawal_debited(*self.who, SENT, agent=AGENT, **a_key())

    def exchanged(self):
        ledger.post_withdrawal_exchanged(*self.who, SENT, split=SPLIT, at=now())

    def exchange_undone(self):
        ledger.undo_exchange(self.id, at=now())

    def paid(self, amount=PAYOUT):
        ledger.post_withdrawal_paid(*self.who, amount, shortcode=B2C, **a_key())

    def paid_less(self):
        self.paid(kes(1200))
        ledger.post_difference(*self.who, due=PAYOUT, paid=kes(1200), at=now())

    def paid_more(self):
        self.paid(kes(1300))
        ledger.post_difference(*self.who, due=PAYOUT, paid=kes(1300), at=now())

    def paid_out_of_suspense(self):
        self.paid()
        ledger.post_difference(*self.who, due=kes(0), paid=PAYOUT, at=now())

    def payout_undone(self):
        ledger.undo_withdrawal_paid(self.id, at=now())

    def fee(self):
        ledger.post_mpesa_fee(self.id, kes(13), shortcode=B2C, **a_key())

    def credited_back(self):
        ledger.post_credit_back_sent(*self.who, SENT, agent=AGENT, **a_key())

    def debit_reverted(self):
        ledger.post_debit_reverted(*self.who, SENT, agent=AGENT, covered=True, **a_key())

    def debit_owed(self):
        ledger.post_debit_reverted(*self.who, SENT, agent=AGENT, covered=False, **a_key())

    def uncovered(self):
        ledger.post_uncovered(*self.who, PAYOUT, paid_by="mpesa_utility", owner=B2C, **a_key())

    def orphan_matched(self):
        orphan = a_key()
        ledger.post_suspense_in("deriv_agent", AGENT, SENT, **orphan)
        ledger.post_suspense_matched(*self.who, SENT, orphan=orphan["provider_key"], at=now())


def a_key():
    return {"provider_key": f"test:{new_id()}", "at": now()}


def a_withdrawal(status, *posted, user: UUID | None = None, **over) -> Withdrawal:
    """Stored with what was posted, an audit row that it was shown to a person, and its reservation."""
    at, confirmed = now(), {"debited", "orphan_matched"} & set(posted)
    given = {
        "id": new_id(), "type": "withdrawal", "user_id": user or new_id(), "quote_id": new_id(), "status": status,
        "amount": SENT.amount, "currency": "USD", "payout_amount": PAYOUT.amount, "payout_currency": "KES",
        "mid": MID, "rate": MID - 3, "rate_source": "test", "rate_locked_at": at, "rate_expires_at": at,
        "phone": "254712345678", "phone_index": "x", "platform": "ws_v3", "deriv_account": "CR100001",
        "deriv_currency": "USD", "agent": AGENT, "created_at": at, "updated_at": at,
        "confirmed_at": at if confirmed else None, "deriv_transfer_id": "9001" if confirmed else "",
    } | over  # fmt: skip
    given["outflow"] = CHOSEN.get(given["status"], "")
    stored = models.Transaction.objects.create(**given)
    withdrawal = Withdrawal(TransactionId(stored.id), UserId(stored.user_id))
    for verbs in units(posted):
        with unit_of_work():
            for verb in verbs:
                getattr(withdrawal, verb)()
    with unit_of_work():
        shown_to_a_person(withdrawal)
        if status in RESERVED:
            reserve(withdrawal)
    return withdrawal


def units(posted):
    """As few units of work as can be: what is undone has to be in the ledger before."""
    starts = [0, *(place for place, verb in enumerate(posted) if verb.endswith("_undone")), len(posted)]
    return [posted[start:end] for start, end in pairwise(starts) if start < end]


def reserve(withdrawal, *, account=f"mpesa:{B2C}", amount=PAYOUT + FEE):
    deposits.reservations.reserve(account, withdrawal.id, amount, at=now(), beyond=True)


def shown_to_a_person(withdrawal):
    to = "NEEDS_ATTENTION"
    deposits.audit.append(
        [AuditRecord("transaction.status", "transaction", str(withdrawal.id), now(), "COMPLETED", to, "")]
    )

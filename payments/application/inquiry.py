"""What became of each attempt of a deposit, asked of the providers for a person who looks into it. Changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from payments.domain.ports import DerivGateway, MpesaGateway
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    Lookup,
    Outcome,
    Pending,
    Refused,
    Unreadable,
)
from shared_kernel.domain.ports import UnitOfWork
from shared_kernel.domain.requests import Leg, MpesaClaim, MpesaPayment, ProviderRequest


@dataclass(frozen=True, slots=True)
class Told:
    """What one provider says of one attempt, beside what we hold: `call` is `query`, `pull` or `find`.

    Without personal data: references, codes, amounts and the providers' own ids.
    """

    leg: str
    attempt: int
    reference: str
    status: str
    call: str
    says: str


@dataclass(frozen=True)
class Inquiry:
    """Asks M-Pesa (STK query, Pull) and Deriv (the agent's own book)."""

    mpesa: MpesaGateway
    deriv: DerivGateway
    unit_of_work: UnitOfWork

    def about(self, id: TransactionId) -> list[Told]:
        """One line a question, oldest attempt first. Reads in a unit of work of its own and asks outside of it."""
        with self.unit_of_work():
            payments = self.mpesa.requests_of([id]).get(id, [])
            transfers = self.deriv.transfers_of([id]).get(id, [])
        told = []
        for request in payments:
            if request.leg is not Leg.STK_PUSH:  # M-Pesa tells their state by callback only: what came is in the claims
                told += [_line(request, "callback", _claim(claim)) for claim in request.claims]
                continue
            told.append(_line(request, "query", _outcome(self.mpesa.query(request))))
            told.append(_line(request, "pull", _payments(self.mpesa.payments(request))))
        return told + [_line(transfer, "find", _lookup(self.deriv.find(transfer))) for transfer in transfers]


def _line(request: ProviderRequest, call: str, says: str) -> Told:
    return Told(str(request.leg), request.attempt, request.reference, str(request.status), call, says)


def _claim(claim: MpesaClaim) -> str:
    agrees = "" if claim.agrees else ", which does not agree with the request"
    return f"result {claim.result_code}{f', {claim.fate}' if claim.fate else ''}{agrees}"


def _outcome(outcome: Outcome) -> str:
    match outcome:
        case Done():
            return "done"
        case Accepted():
            return "not decided yet"
        case Refused(code):
            return f"refused {code}"
    return f"no answer: {outcome.code}"


def _payments(found: Sequence[MpesaPayment] | Unreadable) -> str:
    if isinstance(found, Unreadable):
        return f"not readable: {found.code}"
    return ", ".join(f"{payment.receipt} {payment.amount}" for payment in found) or "no payment"


def _lookup(found: Lookup) -> str:
    match found:
        case Found(references, reverted=True):
            return "reverted " + ", ".join(references)
        case Found(references):
            return "found " + ", ".join(references)
        case Absent(proven):
            return "not in the book" if proven else "not seen, but the book has gaps"
        case Dead(code):
            return f"surely not made: {code}"
        case Pending():
            return "not decided yet"
        case Unreadable(code):
            return f"not readable: {code}"

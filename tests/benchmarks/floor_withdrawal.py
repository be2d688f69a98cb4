"""The floor of a withdrawal.

The commits are those of a withdrawal that runs alone: 1 the POST with the debit that is to go, 2 the debit's intent,
3 its outcome, 4 the proof by the agent's book with the exchange and the payout's intent, 5 the payout's outcome, 6 the
callback, 7 the end, 8 the relay's mark on the events.
"""

import secrets

from uuid_utils.compat import uuid7

from tests.benchmarks.floor import Writer


class WithdrawalWriter(Writer):
    """The statements of a withdrawal."""

    def write(self, quote: bytes, user: str) -> None:
        rows, commit = self.known.rows, self.connection.commit
        id, request, debit = (uuid7().bytes for _ in range(3))
        user_id, provider_id = bytes.fromhex(user.replace("-", "")), str(secrets.randbits(40))
        known, payout, moved = rows["transactions"][0], rows["mpesa_requests"][0], rows["deriv_transfers"][0]
        transaction = known | {"id": id, "user_id": user_id, "quote_id": quote}
        audits, events = self.audits(id), self.events(id)

        self.begin(user, transaction, scope="withdrawals")
        code = {"verification_code": moved["account"]}  # encrypted as well, of nearly the same width; wiped later
        waiting = {"status": "not_sent", "outcome_at": None, "asked_at": None, "answer": "", "fence": 1}
        own = {"id": debit, "transaction_id": id, "reference": secrets.token_hex(6), "provider_transaction_id": None}
        self.insert("deriv_transfers", moved | waiting | own | code)
        self.insert("domain_events", events[0])
        self.insert("audit_logs", audits[0])
        commit()

        self.move(id, "DERIV_DEBIT_SENT", transaction)
        self.change("deriv_transfers", debit, status="sending", fence=2, send_before=moved["send_before"])
        self.insert("audit_logs", audits[1])
        commit()

        self.change(
            "deriv_transfers", debit, status="accepted", outcome_at=moved["outcome_at"], answer=moved["answer"],
            verification_code="",
        )  # fmt: skip
        self.move(id, "DERIV_DEBIT_SENT", transaction)
        commit()

        self.move(id, "MPESA_DISBURSING", transaction, deriv_transfer_id=provider_id)
        self.change("deriv_transfers", debit, status="done", provider_transaction_id=provider_id)
        sent = {"status": "sending", "outcome_at": None, "asked_at": None, "answer": "", "conversation_id": ""}
        once = {
            "id": request, "transaction_id": id, "open_outflow": id, "reference": secrets.token_hex(16),
            "callback_hash": secrets.token_hex(32), "timeout_hash": secrets.token_hex(32), "receipt": None,
        }  # fmt: skip
        self.insert("mpesa_requests", payout | sent | once)
        accounts = self.open_accounts(user)
        entries = self.entries(id, accounts)
        self.post([entry for entry in entries if entry["purpose"] != "withdrawal_paid"], accounts)
        self.insert("audit_logs", *audits[2:-1])
        commit()

        self.change(
            "mpesa_requests", request, status="accepted", outcome_at=payout["outcome_at"],
            conversation_id=payout["conversation_id"], answer=payout["answer"],
        )  # fmt: skip
        self.move(id, "MPESA_DISBURSING", transaction)
        commit()

        receipt = secrets.token_hex(5)
        self.called_back(request, receipt)
        self.insert("domain_events", events[1])
        commit()

        self.change(
            "mpesa_requests", request, status="done", receipt=receipt, asked_at=payout["asked_at"], open_outflow=None
        )
        self.move(id, "COMPLETED", transaction, mpesa_receipt=receipt)
        self.post([entry for entry in entries if entry["purpose"] == "withdrawal_paid"], accounts)
        self.insert("domain_events", *events[2:])
        self.insert("audit_logs", *audits[-1:])
        self.end(id)
        commit()

        self.published(events)
        commit()

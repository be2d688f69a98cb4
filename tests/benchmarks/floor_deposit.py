"""The floor of a deposit.

The commits are those of a deposit that runs alone: 1 the POST, 2 the prompt's intent, 3 its outcome, 4 the callback,
5 the proof with the transfer's intent, 6 the transfer's outcome, 7 the relay's mark on the three events.
"""

import secrets

from uuid_utils.compat import uuid7

from tests.benchmarks.floor import Writer

NOT_YET = {"status": "sending", "outcome_at": None, "asked_at": None, "answer": ""}


class DepositWriter(Writer):
    """The statements of a deposit."""

    def write(self, quote: bytes, user: str) -> None:
        rows, commit = self.known.rows, self.connection.commit
        id, request, transfer = (uuid7().bytes for _ in range(3))
        user_id = bytes.fromhex(user.replace("-", ""))
        transaction = rows["transactions"][0] | {"id": id, "user_id": user_id, "quote_id": quote}
        audits, events = self.audits(id), self.events(id)
        prompt = rows["mpesa_requests"][0] | {
            "id": request, "transaction_id": id, "reference": secrets.token_hex(6),
            "callback_hash": secrets.token_hex(32), "open_phone": secrets.token_hex(32),
        }  # fmt: skip

        self.begin(user, transaction, scope="deposits")
        self.insert("domain_events", events[0])
        self.insert("audit_logs", audits[0])
        commit()

        self.move(id, "AWAITING_MPESA", transaction)
        later = {"merchant_request_id": "", "checkout_request_id": "", "checkout_index": None, "receipt": None}
        self.insert("mpesa_requests", prompt | NOT_YET | later)
        self.insert("audit_logs", audits[1])
        commit()

        self.change(
            "mpesa_requests", request, status="accepted", outcome_at=prompt["outcome_at"],
            merchant_request_id=prompt["merchant_request_id"], checkout_request_id=prompt["checkout_request_id"],
            checkout_index=secrets.token_hex(32), answer=prompt["answer"],
        )  # fmt: skip
        self.move(id, "AWAITING_MPESA", transaction)
        commit()

        self.called_back(request, secrets.token_hex(5))
        self.insert("domain_events", events[1])
        commit()

        self.move(id, "DERIV_TRANSFER_SENT", transaction)
        own = {"id": transfer, "transaction_id": id, "reference": secrets.token_hex(6)}
        moved = rows["deriv_transfers"][0]
        self.insert("deriv_transfers", moved | NOT_YET | own | {"provider_transaction_id": None})
        self.change("mpesa_requests", request, status="done", asked_at=prompt["asked_at"], open_phone=None)
        accounts = self.open_accounts(user)
        entries = self.entries(id, accounts)
        self.post([entry for entry in entries if entry["purpose"] == "deposit_received"], accounts)
        self.insert("audit_logs", *audits[2:-1])
        commit()

        provider_id = str(secrets.randbits(40))
        self.change(
            "deriv_transfers", transfer, status="done", outcome_at=moved["outcome_at"],
            provider_transaction_id=provider_id, answer=moved["answer"],
        )  # fmt: skip
        self.move(id, "COMPLETED", transaction, deriv_transfer_id=provider_id)
        self.post([entry for entry in entries if entry["purpose"] != "deposit_received"], accounts)
        self.insert("domain_events", *events[2:])
        self.insert("audit_logs", *audits[-1:])
        self.end(id)
        commit()

        self.published(events)
        commit()

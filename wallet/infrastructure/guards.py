"""What the database refuses of the ledger, beside the constraints of `models.py`.

On MySQL and MariaDB composite foreign keys hold both accounts of an entry to its currency. SQLite can't add a foreign
key to a table that is there, so a trigger looks the accounts up instead: it sees each inserted entry, and since no
account can be changed or deleted the result stays true. That a reversal mirrors its entry is a trigger on all of them.

And what the seals cover of it: every column of every entry.
"""

from shared_kernel.infrastructure.append_only import Guard, Key, Trigger, append_only, refusal
from shared_kernel.infrastructure.seals import SealedTable
from wallet.models import LedgerAccount, LedgerEntry, TreasuryMovement

_NO_SUCH_ACCOUNT = (
    "NOT EXISTS (SELECT 1 FROM ledger_accounts WHERE id = NEW.{side}_account_id AND currency = NEW.currency)"
)
_MIRRORED = (
    "SELECT 1 FROM ledger_entries r WHERE r.id = NEW.reverses AND r.amount = NEW.amount AND r.currency = NEW.currency "
    "AND r.debit_account_id = NEW.credit_account_id AND r.credit_account_id = NEW.debit_account_id"
)

LEDGER_ENTRIES = SealedTable(
    "ledger_entries",
    {
        1: (
            ("seq", "plain"), ("id", "raw"), ("journal_id", "raw"), ("purpose", "plain"), ("debit_account_id", "raw"),
            ("credit_account_id", "raw"), ("amount", "plain"), ("currency", "plain"), ("transaction_id", "raw"),
            ("reference", "plain"), ("provider_key", "plain"), ("reverses", "raw"), ("effective_at", "moment"),
            ("recorded_at", "moment"),
        )
    },
    "recorded_at",
)  # fmt: skip

# What becomes of a treasury movement; what was proposed, and approved as it was, stays as it was.
DECIDED = (
    "status", "by", "approved_by", "approved_at", "arrival_reference", "arrival_day", "charge", "lost",
    "arrival_by", "arrival_approved_by", "closed_by", "closed_why", "closed_at",
)  # fmt: skip

GUARDS: list[Guard] = [
    *append_only(LedgerEntry),
    *append_only(LedgerAccount),
    *append_only(TreasuryMovement, may_change=DECIDED),
    *(
        Key(
            f"ledger_{side}_currency",
            "ledger_entries",
            (f"{side}_account_id", "currency"),
            "ledger_accounts",
            ("id", "currency"),
        )
        for side in ("debit", "credit")
    ),
    Key("ledger_reversed_entry", "ledger_entries", ("reverses",), "ledger_entries", ("id",)),
    Trigger(
        "ledger_entries_accounts",
        "ledger_entries",
        "INSERT",
        refusal(
            "both accounts of an entry have its currency",
            {"sqlite": " OR ".join(_NO_SUCH_ACCOUNT.format(side=side) for side in ("debit", "credit"))},
        ),
    ),
    Trigger(
        "ledger_entries_reversed",
        "ledger_entries",
        "INSERT",
        refusal(
            "a reversal mirrors the entry that it names",
            dict.fromkeys(("mysql", "sqlite"), f"NEW.reverses IS NOT NULL AND NOT EXISTS ({_MIRRORED})"),
        ),
    ),
]

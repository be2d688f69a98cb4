"""What `verify_statuses` finds, as plain tuples."""

from payments.facade import verify_statuses
from wallet.facade import snapshot


def findings() -> list[tuple[str, str, str]]:
    """Check, row, detail."""
    with snapshot():
        return [(finding.check, finding.row, finding.detail) for finding in verify_statuses()]


def checks() -> list[tuple[str, str]]:
    return [(check, row) for check, row, _ in findings()]


def row(transaction) -> str:
    return f"transactions {transaction.id}"

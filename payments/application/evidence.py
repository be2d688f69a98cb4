"""The evidence of a Transaction: all that is stored about it, told in order of time, masked, hashed, and audited.

Whoever is told the story leaves an audit row with the document's SHA-256, so that a file can be held against the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from payments.application.evidence_sections import sections
from payments.domain.evidence import TOLD, Archive, NotEvidence, Records, Told, document, faults
from payments.domain.masking import Masker
from payments.domain.proposal import ReasonMissing, SamePerson
from payments.domain.transaction import TransactionNotFound
from shared_kernel.domain.errors import Forbidden
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, UnitOfWork


class RevealNotAllowed(Forbidden):
    """Personal data in clear is for those who have the right to reveal it, and for two of them at once."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Tells the story of a Transaction."""

    archive: Archive
    audit: AuditLog
    fingerprint: Callable[[str], str]  # keyed, of what is hidden
    bare: Callable[[str], str]  # SHA-256, of what is shown in clear
    unit_of_work: UnitOfWork
    clock: Clock

    def tell(self, id: TransactionId, *, by: str, why: str = "") -> dict[str, Any]:
        """The document, personal data masked; `by` as in audit rows. Raises `TransactionNotFound`."""
        return self._told(id, Told(at=self.clock(), by=by, why=why.strip()))

    def reveal(self, id: TransactionId, *, staff: str, approved_by: str, why: str) -> dict[str, Any]:
        """The document with personal data in clear, for a reason, asked for by one person and approved by another.

        Secrets are never in it. Raises `ReasonMissing`, `SamePerson`, `RevealNotAllowed`, `TransactionNotFound`.
        """
        if not why.strip():
            raise ReasonMissing("say why personal data is needed in clear: it stays in the audit log")
        one, other = staff.strip().lower(), approved_by.strip().lower()
        if not one or not other or one == other:
            raise SamePerson("personal data in clear takes two people: who asks, and somebody else who approves")
        for name in (one, other):
            if not self.archive.may_reveal(name):
                raise RevealNotAllowed(f"{name} is nobody who may reveal personal data")
        return self._told(id, Told(at=self.clock(), by=f"staff:{one}", why=why.strip(), approved_by=f"staff:{other}"))

    def faults(self, made: Mapping[str, Any]) -> list[str]:
        """What is wrong with a document that somebody holds: its hashes, or that the audit log knows none such.

        Raises `NotEvidence`.
        """
        found = list(faults(made))
        try:
            known = self.archive.hashes_told(UUID(made["transaction"]))
        except (KeyError, TypeError, ValueError, AttributeError) as missing:
            raise NotEvidence("this is no evidence document: it names no Transaction") from missing
        if made["sha256"] not in known:
            found.append("the audit log knows of no such document")
        return found

    def _told(self, id: TransactionId, told: Told) -> dict[str, Any]:
        records = self.archive.records(id)
        if records is None:
            raise TransactionNotFound("no such Transaction")
        made = document(id, told, sections(records, self._masker(records, in_clear=told.in_clear)))
        details = {"sha256": made["sha256"], "personal_data": made["personal_data"], "by": told.by}
        if told.approved_by:
            details["approved_by"] = told.approved_by
        with self.unit_of_work():  # before anybody has it
            self.audit.append([AuditRecord(TOLD, "transaction", str(id), told.at, why=told.why, details=details)])
        return made

    def _masker(self, records: Records, *, in_clear: bool) -> Masker:
        customer, payment = records.customer, records.transaction
        own = [customer.get(name, "") for name in ("full_name", "phone", "email")]
        own += [payment["phone"], payment["deriv_account"]]
        own += [row["phone"] for row in records.mpesa] + [row["account"] for row in records.deriv]
        own += [row[name] for row in records.proposals for name in ("phone", "deriv_account")]
        known = {text for text in own if text and not text.startswith("[")}
        return Masker(in_clear, self.bare if in_clear else self.fingerprint, known)

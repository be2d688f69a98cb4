"""The evidence of a Transaction: all that is stored about it, told in order of time, masked, hashed, and audited.

Whoever is told the story leaves an audit row with the document's SHA-256, so that a file can be held against the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from payments.application.evidence_sections import sections
from payments.domain.evidence import TOLD, Archive, NotEvidence, Records, Told, document, faults
from payments.domain.masking import Masker
from payments.domain.reveal import LASTS, Reveal, RevealNotAsked
from payments.domain.transaction import TransactionNotFound
from shared_kernel.domain.four_eyes import Consents
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Tells the story of a Transaction."""

    archive: Archive
    reveals: Consents[Reveal]
    audit: AuditLog
    fingerprint: Callable[[str], str]  # keyed, of what is hidden
    bare: Callable[[str], str]  # SHA-256, of what is shown in clear
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource

    def tell(self, id: TransactionId, *, by: str, why: str = "") -> dict[str, Any]:
        """The document, personal data masked; `by` as in audit rows. Raises `TransactionNotFound`."""
        return self._told(id, Told(at=self.clock(), by=by, why=why.strip()))

    def ask(self, id: TransactionId, *, by: str, why: str) -> Reveal:
        """Asks for the document with personal data in clear. Raises `TransactionNotFound`, `ReasonMissing`."""
        if not self.archive.is_there(id):
            raise TransactionNotFound("no such Transaction")
        at = self.clock()
        asked = Reveal(id=self.new_id(), by=by, why=why.strip()[:255], at=at, expires_at=at + LASTS, transaction_id=id)
        with self.unit_of_work():
            self.reveals.add(asked)
            self._note("evidence.reveal_asked", asked, by, at)
        return asked

    def approve(self, reveal: UUID, *, by: str) -> None:
        """Another person agrees. Raises `ConsentNotFound`, `SamePerson`, `AlreadyApproved`, `ConsentExpired`."""
        with self.unit_of_work():
            at = self.clock()
            approved = self.reveals.get(reveal).approved(by, at)
            self.reveals.save(approved)
            self._note("evidence.reveal_approved", approved, by, at)

    def reveal(self, id: TransactionId, *, by: str) -> dict[str, Any]:
        """The document with personal data in clear, for whoever asked, once; secrets are never in it.

        Raises `RevealNotAsked`, `NotApproved`, `AlreadyUsed`, `ConsentExpired`, `TransactionNotFound`.
        """
        asked = self.reveals.newest(transaction_id=id, by=by)
        if asked is None:
            raise RevealNotAsked("ask for it first, with a reason; then a second person approves it in the back-office")
        at = self.clock()
        asked.used(at)  # before anything is read
        told = Told(at=at, by=by, why=asked.why, approved_by=asked.approved_by)
        return self._told(id, told, asked.id)

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

    def _told(self, id: TransactionId, told: Told, reveal: UUID | None = None) -> dict[str, Any]:
        records = self.archive.records(id)
        if records is None:
            raise TransactionNotFound("no such Transaction")
        made = document(id, told, sections(records, self._masker(records, in_clear=told.in_clear)))
        details = {"sha256": made["sha256"], "personal_data": made["personal_data"], "by": told.by}
        if told.approved_by:
            details |= {"approved_by": told.approved_by, "reveal": str(reveal)}
        with self.unit_of_work():  # before anybody has it
            if reveal is not None:
                self.reveals.save(self.reveals.get(reveal).used(told.at))
            self.audit.append([AuditRecord(TOLD, "transaction", str(id), told.at, why=told.why, details=details)])
        return made

    def _note(self, action: str, asked: Reveal, who: str, at: datetime) -> None:
        details = {"reveal": str(asked.id), "by": who}
        self.audit.append(
            [AuditRecord(action, "transaction", str(asked.transaction_id), at, why=asked.why, details=details)]
        )

    def _masker(self, records: Records, *, in_clear: bool) -> Masker:
        customer, payment = records.customer, records.transaction
        own = [customer.get(name, "") for name in ("full_name", "phone", "email")]
        own += [payment["phone"], payment["deriv_account"]]
        own += [row["phone"] for row in records.mpesa] + [row["account"] for row in records.deriv]
        own += [row[name] for row in records.proposals for name in ("phone", "deriv_account")]
        known = {text for text in own if text and not text.startswith("[")}
        return Masker(in_clear, self.bare if in_clear else self.fingerprint, known)

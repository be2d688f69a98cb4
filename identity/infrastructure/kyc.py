"""Submissions of documents over Django: append-only, encrypted, one document one customer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction

from identity.domain.kyc_snapshot import CleanImage, KycFacts, KycSnapshot, Side
from identity.models import kyc as kyc_rows
from shared_kernel.domain.identifiers import UserId
from shared_kernel.infrastructure.append_only import Guard, append_only
from shared_kernel.infrastructure.encryption import blind_index, content_place, seal_content
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import AuditLog

GUARDS: list[Guard] = [
    *append_only(kyc_rows.KycDocument),
    *append_only(kyc_rows.KycSnapshot),
    *append_only(kyc_rows.KycImage),
]


def document_index(facts: KycFacts) -> str:
    """What a document is found by: nobody else can submit it."""
    return blind_index("kyc_documents.document", facts.document)


@dataclass(frozen=True)
class DjangoKycSnapshots:
    """`kyc_documents`, `kyc_snapshots`, `kyc_images`."""

    def refusals_since(self, user: UserId, since: datetime, action: str) -> int:
        return AuditLog.objects.filter(target_type="user", target_id=str(user), action=action, at__gt=since).count()

    def claim(self, facts: KycFacts, user: UserId, *, at: datetime) -> UserId:
        index = document_index(facts)
        owners = kyc_rows.KycDocument.objects.filter(document_index=index).values_list("user_id", flat=True)
        if (owner := owners.first()) is None:
            row = kyc_rows.KycDocument(id=new_id(), user_id=user, document_index=index, claimed_at=at)
            try:
                with transaction.atomic():  # a savepoint: the caller writes an audit row
                    row.save(force_insert=True)
                return user
            except IntegrityError:  # both at the same moment: the unique index decides
                owner = owners.get()
        return UserId(owner)

    def versions(self, user: UserId) -> int:
        return kyc_rows.KycSnapshot.objects.filter(user_id=user).count()

    def add(self, snapshot: KycSnapshot, images: Mapping[Side, CleanImage]) -> None:
        facts = snapshot.facts
        kyc_rows.KycSnapshot(
            id=snapshot.id,
            user_id=snapshot.user_id,
            version=snapshot.version,
            document=kyc_rows.KycDocument.objects.get(document_index=document_index(facts)),
            full_name=snapshot.full_name,
            id_type=facts.id_type,
            id_country=facts.id_country,
            id_number=facts.id_number,
            id_issued_on=facts.id_issued_on,
            id_expires_on=facts.id_expires_on,
            date_of_birth=facts.date_of_birth.isoformat(),
            gender=facts.gender,
            nationality=facts.nationality,
            residence=facts.residence,
            kra_pin=facts.kra_pin,
            submitted_at=snapshot.submitted_at,
        ).save(force_insert=True)
        for side, image in images.items():  # three at most, each a packet of its own to the database
            row = kyc_rows.KycImage(
                id=new_id(), snapshot_id=snapshot.id, side=side, width=image.width, height=image.height
            )
            row.key, row.content = seal_content(image.content, content_place(row))
            row.save(force_insert=True)

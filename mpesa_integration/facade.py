"""M-Pesa, assembled: what payments and the callbacks' edge use. Nothing is connected before the first call."""

from django.conf import settings

from mpesa_integration.application.mpesa import Mpesa
from mpesa_integration.infrastructure.daraja import DarajaAccount, DarajaClient
from mpesa_integration.infrastructure.persistence import DjangoMpesaCallbacks, DjangoMpesaRequests, DjangoTokens
from mpesa_integration.infrastructure.tokens import SharedToken
from shared_kernel.infrastructure.coordination import DjangoLeases
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import DjangoAuditLog, DjangoOutboxRepository, new_id, now, unit_of_work


def account() -> DarajaAccount:
    """As the settings are now."""
    return DarajaAccount(
        base_url=settings.MPESA_BASE_URL,
        consumer_key=settings.MPESA_CONSUMER_KEY,
        consumer_secret=settings.MPESA_CONSUMER_SECRET,
        passkey=settings.MPESA_PASSKEY,
        callback_base_url=settings.MPESA_CALLBACK_BASE_URL,
    )


mpesa = Mpesa(
    requests=DjangoMpesaRequests(),
    callbacks=DjangoMpesaCallbacks(),
    daraja=DarajaClient(account, SharedToken(DjangoTokens(), DjangoLeases(), now), now),
    outbox=DjangoOutboxRepository(),
    audit=DjangoAuditLog(),
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    digest=blind_index,
    shortcode=lambda: str(settings.MPESA_SHORTCODE),
)

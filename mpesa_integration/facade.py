"""M-Pesa, assembled: what payments and the callbacks' edge use. Nothing is connected before the first call."""

from django.conf import settings

from mpesa_integration import queries
from mpesa_integration.application.callbacks import Callbacks, Received
from mpesa_integration.application.mpesa import Mpesa
from mpesa_integration.infrastructure.callbacks import DjangoMpesaCallbacks
from mpesa_integration.infrastructure.daraja import DarajaAccount, DarajaClient
from mpesa_integration.infrastructure.initiators import DjangoInitiators
from mpesa_integration.infrastructure.persistence import DjangoMpesaRequests, DjangoTokens
from mpesa_integration.infrastructure.tokens import SharedToken
from shared_kernel.infrastructure.coordination import DjangoLeases
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import DjangoAuditLog, DjangoOutboxRepository, new_id, now, unit_of_work

__all__ = ["Received", "account", "callbacks", "mpesa", "queries", "shortcodes"]


def account() -> DarajaAccount:
    """As the settings are now."""
    return DarajaAccount(
        base_url=settings.MPESA_BASE_URL,
        consumer_key=settings.MPESA_CONSUMER_KEY,
        consumer_secret=settings.MPESA_CONSUMER_SECRET,
        passkey=settings.MPESA_PASSKEY,
        callback_base_url=settings.MPESA_CALLBACK_BASE_URL,
        initiator_name=settings.MPESA_INITIATOR_NAME,
        initiator_password=settings.MPESA_INITIATOR_PASSWORD,
        certificate_file=settings.MPESA_CERTIFICATE_FILE,
        certificate_sha256=settings.MPESA_CERTIFICATE_SHA256,
    )


def shortcodes() -> tuple[str, str]:
    """The one that is paid to, and the one that pays out; on a one-account shortcode they are the same."""
    return settings.MPESA_SHORTCODE, settings.MPESA_B2C_SHORTCODE


_callbacks = DjangoMpesaCallbacks()
_initiators = DjangoInitiators(DjangoAuditLog(), lambda: str(settings.MPESA_INITIATOR_NAME))

mpesa = Mpesa(
    requests=DjangoMpesaRequests(),
    callbacks=_callbacks,
    initiators=_initiators,
    daraja=DarajaClient(account, SharedToken(DjangoTokens(), DjangoLeases(), now), now),
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    digest=blind_index,
    shortcode=lambda: shortcodes()[0],
    b2c_shortcode=lambda: shortcodes()[1],
)

callbacks = Callbacks(
    callbacks=_callbacks,
    initiators=_initiators,
    outbox=DjangoOutboxRepository(),
    audit=DjangoAuditLog(),
    unit_of_work=unit_of_work,
    new_id=new_id,
    digest=blind_index,
    shortcodes=shortcodes,
)

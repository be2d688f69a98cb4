"""Deriv assembled: `deriv`, and `oauth` for customers' sign-ins, are all that other contexts import."""

from django.conf import settings

from deriv_integration import queries
from deriv_integration.application.deriv import Deriv
from deriv_integration.infrastructure.oauth import OAuth
from deriv_integration.infrastructure.persistence import DjangoAgentRegistry, DjangoTransferRepository
from deriv_integration.infrastructure.rest_v1.adapter import Rest
from deriv_integration.infrastructure.rest_v1.client import AgentCredential
from deriv_integration.infrastructure.ws_v3.adapter import WsV3
from deriv_integration.infrastructure.ws_v3.link import Credential
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.infrastructure.persistence import DjangoAuditLog, new_id, now

__all__ = ["deriv", "oauth", "queries", "rest", "ws_v3"]

ws_v3 = WsV3(
    settings.DERIV_WS_URL,
    settings.DERIV_APP_ID,
    [
        Credential(agent["loginid"], agent["token"], agent.get("currency", "USD"))
        for agent in settings.DERIV_AGENTS
        if agent["platform"] == DerivPlatform.WS_V3
    ],
    equal_spacing_s=settings.DERIV_EQUAL_SPACING_S,
)
rest = Rest(
    settings.DERIV_REST_URL,
    settings.DERIV_OAUTH_CLIENT_ID or settings.DERIV_APP_ID,  # the new API's app has an id of its own
    [
        AgentCredential(int(agent["agent_id"]), agent["token"], agent.get("currency", "USD"))
        for agent in settings.DERIV_AGENTS
        if agent["platform"] == DerivPlatform.REST
    ],
)
oauth = OAuth(
    settings.DERIV_OAUTH_CLIENT_ID,
    settings.DERIV_OAUTH_AUTH_URL,
    settings.DERIV_OAUTH_TOKEN_URL,
    f"{settings.DERIV_OAUTH_RETURN_BASE_URL.rstrip('/')}/oauth/deriv/return",
)
deriv = Deriv(
    transfers=DjangoTransferRepository(),
    agents=DjangoAgentRegistry(DjangoAuditLog()),
    platforms={DerivPlatform.WS_V3: ws_v3, DerivPlatform.REST: rest},
    clock=now,
    ids=new_id,
)

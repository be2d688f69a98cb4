"""Sign-ins at Deriv that were begun, and the tokens of bound logins, as rows."""

from dataclasses import dataclass

from identity import models
from identity.domain.deriv_authorization import DerivAuthorization
from identity.domain.deriv_token import DerivToken
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.requests import DerivPlatform


@dataclass(frozen=True)
class DjangoDerivAuthorizations:
    """`deriv_authorizations`."""

    def owner_of(self, state_hash: str) -> UserId | None:
        id = models.DerivAuthorization.objects.filter(state_hash=state_hash).values_list("pk", flat=True).first()
        return None if id is None else UserId(id)

    def get(self, user: UserId) -> DerivAuthorization | None:
        row = models.DerivAuthorization.objects.filter(pk=user).first()
        if row is None:
            return None
        columns = {name: getattr(row, name) for name in AUTHORIZATION_COLUMNS}
        return DerivAuthorization(user_id=user, platform=DerivPlatform(row.platform), **columns)

    def save(self, authorization: DerivAuthorization) -> None:
        columns = {name: getattr(authorization, name) for name in AUTHORIZATION_COLUMNS}
        models.DerivAuthorization(user_id=authorization.user_id, platform=authorization.platform, **columns).save()

    def remove(self, user: UserId) -> None:
        models.DerivAuthorization.objects.filter(pk=user).delete()


AUTHORIZATION_COLUMNS = (
    "session_id",
    "state_hash",
    "verifier",
    "created_at",
    "expires_at",
    "returned_at",
    "code_hash",
    "tries",
)


@dataclass(frozen=True)
class DjangoDerivTokens:
    """The tokens in `deriv_logins`."""

    def get(self, user: UserId) -> DerivToken | None:
        row = models.DerivLogin.objects.filter(active_for_id=user).defer("token").first()
        if row is None:
            return None
        return DerivToken(
            login_id=row.id, bound_at=row.bound_at, **{name: getattr(row, name) for name in TOKEN_COLUMNS}
        )

    def save(self, token: DerivToken) -> None:
        row = models.DerivLogin(id=token.login_id, **{name: getattr(token, name) for name in TOKEN_COLUMNS})
        changed = list(TOKEN_COLUMNS)
        if token.renewed is not None:
            row.token = token.renewed
            changed.append("token")
        row.save(force_update=True, update_fields=changed)


TOKEN_COLUMNS = ("expires_at", "refresh_token", "refreshed_at", "refreshing_until", "lost_at")

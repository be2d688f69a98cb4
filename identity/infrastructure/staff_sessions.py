"""Sessions of the back-office, whose rows nobody can sign in with: Django keeps the cookie's value in clear as a key.

`SESSION_ENGINE` names this module. A row's key is the first 160 bits of the SHA-256 of the cookie's value, in
hexadecimal: the value has 165 random bits, so no search finds it from the row.
"""

from hashlib import sha256
from typing import Any

from django.contrib.sessions.backends import db
from django.utils import timezone


def row_key(session_key: str) -> str:
    """Under what the session of that cookie is kept: 40 hexadecimal digits, as long as Django's column."""
    return sha256(session_key.encode()).hexdigest()[:40]


class SessionStore(db.SessionStore):
    """Django's, over rows that do not hold the cookie's value."""

    def _get_session_from_db(self) -> Any:
        return self._found(self._living().first())

    async def _aget_session_from_db(self) -> Any:
        return self._found(await self._living().afirst())

    def _living(self) -> Any:
        return self.model.objects.filter(session_key=row_key(self.session_key or ""), expire_date__gt=timezone.now())

    def _found(self, row: Any) -> Any:
        if row is None:
            self._session_key = None  # a key that is nobody's is never taken up: the next one is new
        return row

    def exists(self, session_key: str) -> bool:
        return super().exists(row_key(session_key))

    async def aexists(self, session_key: str) -> bool:
        return await super().aexists(row_key(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        row = super().create_model_instance(data)
        row.session_key = row_key(row.session_key)
        return row

    async def acreate_model_instance(self, data: dict[str, Any]) -> Any:
        row = await super().acreate_model_instance(data)
        row.session_key = row_key(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            super().delete(row_key(key))

    async def adelete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            await super().adelete(row_key(key))

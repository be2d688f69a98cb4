"""Telling customers of changes: stored in the commit of the change, sent by a worker that does not forget."""

from collections.abc import Sequence
from dataclasses import dataclass

from identity.application.codes import Cause, Messages
from identity.domain.notice import Notice, NoticeKind
from identity.domain.ports import NoticeRepository
from identity.domain.user import User
from identity.domain.verification import Target
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.events import Event, NoticeDue
from shared_kernel.domain.ports import Clock, IdSource, UnitOfWork


@dataclass(frozen=True)
class Notices:
    """Notices of changes, to the verified channels that the customer had before."""

    notices: NoticeRepository
    messages: Messages
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def tell(self, user: User, kind: NoticeKind, channels: Sequence[Target]) -> None:
        """Joins the caller's unit of work, which saves `user` afterwards; `channels` as they were before the change."""
        at = self.clock()
        for target in channels:
            notice = Notice(id=self.ids(), user_id=user.id, kind=kind, target=target, created_at=at)
            self.notices.add(notice)
            user.record(NoticeDue(user_id=user.id, notice_id=notice.id, occurred_at=at))

    def send(self, events: Sequence[Event]) -> None:
        """Follows `NoticeDue`. One that is sent already is not sent again. Raises what the last failure raised."""
        with self.unit_of_work():
            due = self.notices.unsent([event.notice_id for event in events if isinstance(event, NoticeDue)])
        failed: Unavailable | None = None
        for notice in due:
            try:
                self.messages.send(Cause.NOTICE, notice.target, "Your PenPay account", notice.text)
            except Unavailable as away:
                failed = away
                continue
            with self.unit_of_work():
                self.notices.sent(notice, at=self.clock())
        if failed is not None:
            raise failed


def proven_channels(user: User) -> list[Target]:
    """The verified phone and address, if there are any."""
    return [channel for channel in (user.proven_phone(), user.proven_email()) if channel is not None]

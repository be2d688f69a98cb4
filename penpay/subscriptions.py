"""Who follows which event. With `penpay/urls.py` it is the map of the system."""

from identity.facade import account, deriv_tokens, notices, registration
from payments.facade import deposits, explained_orphans, withdrawals
from shared_kernel.application.delivery import Lasting, Subscriptions
from shared_kernel.domain.events import (
    DerivTokenWasRefused,
    MpesaCallbackReceived,
    NoticeDue,
    PasswordResetAsked,
    SuspenseExplained,
    TransactionCreated,
    UserRegistered,
)

SUBSCRIPTIONS: Subscriptions = {
    UserRegistered: [Lasting(registration.send_codes)],
    PasswordResetAsked: [Lasting(account.send_reset_codes)],
    DerivTokenWasRefused: [Lasting(deriv_tokens.follow)],
    NoticeDue: [Lasting(notices.send)],
    TransactionCreated: [deposits.advance, withdrawals.advance],
    # it may re-open what has ended, where no timer would
    MpesaCallbackReceived: [Lasting(deposits.advance), Lasting(withdrawals.advance)],
    SuspenseExplained: [Lasting(explained_orphans.look_again)],
}

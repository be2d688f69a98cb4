"""Who follows which event. With `penpay/urls.py` it is the map of the system."""

from identity.facade import registration
from payments.facade import deposits
from shared_kernel.application.delivery import Lasting, Subscriptions
from shared_kernel.domain.events import MpesaCallbackReceived, TransactionCreated, UserRegistered

SUBSCRIPTIONS: Subscriptions = {
    UserRegistered: [Lasting(registration.send_codes)],
    TransactionCreated: [deposits.advance],
    MpesaCallbackReceived: [Lasting(deposits.advance)],  # it may re-open a deposit that has ended: no timer would
}

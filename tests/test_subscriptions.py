"""Who follows which event: what must not get lost with the broker."""

from penpay.subscriptions import SUBSCRIPTIONS
from shared_kernel.application.delivery import must_arrive
from shared_kernel.domain.events import MpesaCallbackReceived


def test_a_callback_reaches_its_deposit_even_if_the_broker_forgets_it():
    """A deposit that has failed has no timer, and the callback may say that it was paid after all."""
    assert must_arrive(SUBSCRIPTIONS[MpesaCallbackReceived])

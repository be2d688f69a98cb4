"""Who follows which event: what must not get lost with the broker."""

from penpay.subscriptions import SUBSCRIPTIONS
from shared_kernel.application.delivery import must_arrive
from shared_kernel.domain.events import MpesaCallbackReceived, NoticeDue, PasswordResetAsked


def test_a_callback_reaches_its_deposit_even_if_the_broker_forgets_it():
    """A deposit that has failed has no timer, and the callback may say that it was paid after all."""
    assert must_arrive(SUBSCRIPTIONS[MpesaCallbackReceived])


def test_what_a_customer_is_told_and_asked_for_reaches_them_even_if_the_broker_forgets_it():
    for event in (NoticeDue, PasswordResetAsked):
        assert must_arrive(SUBSCRIPTIONS[event])

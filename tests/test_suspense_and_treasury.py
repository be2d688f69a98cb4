"""What recovery took into suspense is explained once: by a settlement there, or by a movement of the treasury."""

import pytest

from payments.domain.suspense import ItemNotFound, SettlementKind as K
from payments.facade import suspense
from payments.tests.factories import SHORTCODE, a_float, usd
from payments.tests.test_recovery import suspense as lying
from payments.tests.test_suspense import in_order, names, orphan, out, propose, settle
from wallet.domain.ledger import ProviderKeyUsed
from wallet.domain.treasury import Kind
from wallet.facade import orphans_settled, treasury_movements
from wallet.tests.treasuring import JOHN, MARY, approved, seen

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


def a_top_up(movement, amount):
    """Of the agent, seen to arrive as this movement, which recovery took into suspense before."""
    id = approved(Kind.TOP_UP_AGENT, amount=amount)
    seen(id, reference=movement)
    return id


def test_what_settles_each_other_is_not_there_for_the_treasury_any_more():
    came, left = orphan(usd(5_00), "9001"), orphan(out(usd(5_00)), "9002")
    top_up = a_top_up("9001", usd(5_00))
    settle(came, K.RETURNED, movement="9002")

    with pytest.raises(ProviderKeyUsed):
        treasury_movements.approve(top_up, by=JOHN)

    assert names() == []
    assert orphans_settled([came, left]) == {came, left}
    assert lying("USD") == 0
    assert in_order()


def test_what_the_treasury_explained_lies_there_again_once_that_was_reversed_and_can_be_settled():
    came = orphan(usd(5_00), "9001")
    top_up = a_top_up("9001", usd(5_00))
    waiting = propose(came, K.RETURNED, movement=orphan(out(usd(5_00)), "9002").rpartition(":")[2])
    treasury_movements.approve(top_up, by=JOHN)
    with pytest.raises(ItemNotFound):
        suspense.approve(waiting, by="staff:john")
    suspense.reject(waiting, by="staff:john", why="treasury explained it")
    treasury_movements.approve(treasury_movements.propose_reversal(top_up, by=MARY, why="of another day").id, by=JOHN)
    assert came in names()

    settle(came, K.RETURNED, movement="9002")

    assert names() == []
    assert lying("USD") == 0
    assert in_order()

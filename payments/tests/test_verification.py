"""`verify_ledger` finds each way in which ledger and reservations can differ from the Transactions' statuses."""

import json
from uuid import UUID

import pytest
from django.core.management import call_command

from payments.domain.transaction import NEXT, TransactionStatus as S, TransactionType
from payments.facade import deposits, transactions
from payments.tests.factories import AGENT, CHOSEN, SHORTCODE, a_float, a_stored_deposit, kes, receive, send, usd
from payments.tests.verifying import checks, findings, row
from shared_kernel.domain.identifiers import DerivTransferId, TransactionId
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.facade import customer_in_transit, ledger, snapshot, verify_ledger

pytestmark = pytest.mark.django_db(transaction=True)
REACHED = [s for s in NEXT[TransactionType.DEPOSIT] if s not in {S.UNDER_REVIEW, S.REFUNDED, S.NEEDS_ATTENTION}]


@pytest.fixture(autouse=True)
def _float():
    a_float()


def changed(deposit, change):
    """`change` in a unit of work with the deposit as it is stored."""
    with unit_of_work():
        [read] = transactions.get_many([deposit.id], TransactionType.DEPOSIT)
        change(read)
        deposits.save([read], ())


def test_deposits_in_every_status_are_sound():
    for status in REACHED:
        a_stored_deposit(status)
    user = new_id()
    for _ in range(3):
        a_stored_deposit(S.MPESA_CONFIRMED, user=user)

    with snapshot():
        assert verify_ledger().findings == []
    assert findings() == []


def test_a_deposit_that_was_paid_twice_and_shown_to_a_person_is_sound():
    def paid_twice(deposit):
        deposit.confirmed_at = now()
        receive(deposit)
        receive(deposit)
        ledger.post_excess(deposit.id, deposit.user_id, deposit.amount, at=now())
        deposit.need_attention("paid_twice", at=now())

    changed(a_stored_deposit(S.AWAITING_MPESA), paid_twice)

    assert findings() == []


def booked_twice(deposit):
    ledger.post_duplicate_sent(deposit.id, deposit.payout, agent=AGENT, provider_key=f"deriv:{new_id()}", at=now())


def test_a_deposit_that_was_credited_twice_is_sound_once_a_person_was_shown_it_and_after_they_resumed_it():
    deposit = a_stored_deposit(S.COMPLETED)
    changed(deposit, lambda read: (booked_twice(read), read.need_attention("credited_twice", at=now())))
    assert findings() == []

    deposits.resume(deposit.id, why="Deriv took the second one back")

    assert findings() == []


def test_a_deposit_that_was_credited_twice_and_shown_to_nobody_is_found():
    deposit = a_stored_deposit(S.COMPLETED)
    changed(deposit, booked_twice)

    assert findings() == [("statuses", row(deposit), "COMPLETED and booked twice, but no person was shown it")]


def put(read, status):
    read.status, read.touched, read.outflow = status, True, CHOSEN.get(status, read.outflow)


def went_to(deposit, status, *posts):
    """Its journals, then its status, in one unit of work."""

    def change(read):
        for post in posts:
            post(read)
        put(read, status)
        deposits.reservations.release([read.id], at=now())

    changed(deposit, change)


def refund(by):
    return lambda deposit: ledger.post_deposit_refunded(
        deposit.id, deposit.user_id, deposit.amount, shortcode=SHORTCODE, by=by, provider_key=f"{new_id()}", at=now()
    )


def take_back(covered):
    return lambda deposit: ledger.post_deposit_reversed(
        deposit.id, deposit.user_id, deposit.amount, shortcode=SHORTCODE, covered=covered, provider_key=f"{new_id()}",
        at=now(),
    )  # fmt: skip


def revert(deposit):
    ledger.undo_deposit_sent(deposit.id, provider_key=f"{new_id()}", at=now())


def take_out_of_suspense(deposit):
    key = f"mpesa:{new_id()}"
    ledger.post_suspense_in("mpesa_working", SHORTCODE, deposit.amount, provider_key=key, at=now())
    ledger.post_suspense_matched(deposit.id, deposit.user_id, deposit.amount, orphan=key, at=now())
    deposit.confirmed_at = now()


@pytest.mark.parametrize("post", [refund("reversal"), refund("b2c"), take_back(covered=True)])
def test_a_refunded_deposit_has_given_back_what_was_received(post):
    went_to(a_stored_deposit(S.REFUND_PENDING), S.REFUNDED, post)
    assert findings() == []
    deposit = a_stored_deposit(S.REFUND_PENDING)

    went_to(deposit, S.REFUNDED)

    assert checks() == [("statuses", row(deposit)), ("on_the_way", f"user {deposit.user_id}")]


@pytest.mark.parametrize("status", [S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING])
@pytest.mark.parametrize("post", [refund("b2c"), take_back(covered=True)])
def test_a_deposit_that_gave_back_before_its_status_says_so_is_found(status, post):
    deposit = a_stored_deposit(status)

    changed(deposit, post)

    assert checks() == [("statuses", row(deposit))]


@pytest.mark.parametrize("status", [S.MPESA_CONFIRMED, S.REFUND_PENDING, S.NEEDS_ATTENTION])
def test_a_deposit_whose_transfer_deriv_reverted_is_sound_once_it_is_open_again(status):
    deposit = a_stored_deposit(S.COMPLETED)
    changed(deposit, revert)
    assert checks() == [("statuses", row(deposit)), ("on_the_way", f"user {deposit.user_id}")]

    def reopened(read):
        read.deriv_transfer_id = DerivTransferId("")
        put(read, status)

    changed(deposit, reopened)
    if status is S.MPESA_CONFIRMED:
        with unit_of_work():
            deposits.reservations.reserve(AGENT, deposit.id, deposit.payout, at=now(), beyond=True)

    assert findings() == []


def test_a_deposit_that_was_reverted_and_sent_anew_is_sound():
    deposit = a_stored_deposit(S.COMPLETED)

    changed(deposit, revert)
    changed(deposit, send)

    assert findings() == []


def test_a_deposit_that_was_paid_by_money_out_of_suspense_is_sound():
    deposit = a_stored_deposit(S.AWAITING_MPESA)

    changed(deposit, take_out_of_suspense)
    assert [check for check, _ in checks()] == ["statuses", "on_the_way"]
    changed(deposit, lambda read: put(read, S.MPESA_CONFIRMED))

    assert findings() == []


def test_a_completed_deposit_that_mpesa_took_back_later_is_owed_by_the_customer():
    changed(a_stored_deposit(S.COMPLETED), take_back(covered=False))

    assert findings() == []


@pytest.mark.parametrize("status", [S.CREATED, S.AWAITING_MPESA, S.REJECTED, S.EXPIRED, S.FAILED])
def test_an_unpaid_status_with_an_entry_is_found(broken, status):
    a_stored_deposit(status)
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    broken(f"UPDATE transactions SET status = '{status}', confirmed_at = NULL WHERE id = %s", deposit.id)

    assert ("statuses", row(deposit), f"{status} is unpaid, but has 1 entries") in findings()


@pytest.mark.parametrize("status", sorted(set(S) - set(NEXT[TransactionType.DEPOSIT])))
def test_a_status_that_no_deposit_has_is_found(broken, status):
    deposit = a_stored_deposit(S.COMPLETED)
    broken(f"UPDATE transactions SET status = '{status}' WHERE id = %s", deposit.id)

    assert ("statuses", row(deposit), f"no deposit is ever {status}") in findings()


def test_a_type_that_there_is_not_is_found(broken):
    deposit = a_stored_deposit(S.COMPLETED)
    broken("UPDATE transactions SET type = 'gift' WHERE id = %s", deposit.id)

    assert ("statuses", row(deposit), "no gift is ever COMPLETED") in findings()


@pytest.mark.parametrize("status", [S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING, S.COMPLETED])
def test_a_paid_status_without_its_received_leg_is_found(broken, status):
    a_stored_deposit(status)
    deposit = a_stored_deposit(status)
    broken("DELETE FROM ledger_entries WHERE purpose = 'deposit_received' AND transaction_id = %s", deposit.id)

    assert ("statuses", row(deposit)) in checks()


@pytest.mark.parametrize("status", [S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.COMPLETED])
def test_another_amount_than_the_deposit_s_is_found(broken, status):
    deposit = a_stored_deposit(status)
    broken("UPDATE ledger_entries SET amount = amount + 1 WHERE purpose = 'deposit_received' AND transaction_id = %s",
           deposit.id)  # fmt: skip

    [first, *_] = findings()
    assert first[:2] == ("statuses", row(deposit))
    assert "1 legs received 130001 of 130000" in first[2]


@pytest.mark.parametrize("status", [S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING])
def test_a_sent_leg_before_its_time_is_found(status):
    deposit = a_stored_deposit(status)
    changed(deposit, send)

    assert ("statuses", row(deposit)) in checks()


@pytest.mark.parametrize("what", ["DELETE FROM ledger_entries WHERE", "UPDATE ledger_entries SET amount = 1 WHERE"])
def test_a_completed_deposit_without_its_sent_leg_or_with_another_amount_is_found(broken, what):
    a_stored_deposit(S.COMPLETED)
    deposit = a_stored_deposit(S.COMPLETED)
    broken(f"{what} purpose = 'deposit_sent' AND currency = 'USD' AND transaction_id = %s", deposit.id)

    [first] = findings()
    assert first[:2] == ("statuses", row(deposit))


def test_a_second_received_leg_is_found():
    deposit = a_stored_deposit(S.DERIV_TRANSFER_SENT)
    changed(deposit, receive)

    assert ("statuses", row(deposit)) in checks()


def test_a_deposit_before_a_person_whose_entries_do_not_fit_its_row_is_found(broken):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    changed(deposit, lambda read: read.need_attention("transfer_unknown", at=now()))
    assert findings() == []

    broken("UPDATE transactions SET confirmed_at = NULL WHERE id = %s", deposit.id)

    assert checks() == [("statuses", row(deposit))]


def test_an_entry_of_no_transaction_is_found():
    stranger = a_stored_deposit(S.CREATED)
    stranger.id = TransactionId(new_id())
    with unit_of_work():
        receive(stranger)

    assert "its Transaction does not exist" in {detail for _, _, detail in findings()}


def test_in_transit_money_that_nobody_waits_for_is_found(broken):
    deposit = a_stored_deposit(S.COMPLETED)
    a_stored_deposit(S.MPESA_CONFIRMED)
    account = held(deposit)
    broken("UPDATE ledger_balances SET credit_balance = credit_balance + 7 WHERE account_id = %s", account)

    assert findings() == [
        ("on_the_way", f"user {deposit.user_id}", "in transit are 7 KES, their Transactions make 0"),
    ]


def test_in_transit_money_that_is_missing_is_found(broken):
    deposit = a_stored_deposit(S.REFUND_PENDING)
    broken("UPDATE ledger_balances SET credit_balance = 0 WHERE account_id = %s", held(deposit))

    assert findings() == [
        ("on_the_way", f"user {deposit.user_id}", "in transit are 0 KES, their Transactions make 130000"),
    ]


def held(deposit) -> UUID:
    return customer_in_transit(deposit.user_id, kes(1).currency).id


def test_a_float_account_that_keeps_another_sum_than_its_rows_is_found(broken):
    deposit = a_stored_deposit(S.CREATED)
    broken("UPDATE float_accounts SET reserved = reserved + 1")

    payout = deposit.payout.amount
    assert findings() == [
        ("reservations", f"float_accounts {AGENT}", f"{payout + 1} is kept, the rows make {payout}"),
    ]


@pytest.mark.parametrize("status", [S.COMPLETED, S.FAILED, S.EXPIRED, S.REJECTED, S.REFUND_PENDING])
def test_a_reservation_that_outlives_its_deposit_is_found(status):
    a_stored_deposit(S.CREATED)
    deposit = a_stored_deposit(status)
    with unit_of_work():
        deposits.reservations.reserve(AGENT, deposit.id, usd(deposit.payout.amount), at=now(), beyond=True)

    assert findings() == [("reservations", row(deposit), f"{status}, but money is still reserved for it")]


def test_a_reservation_for_nobody_is_found():
    with unit_of_work():
        deposits.reservations.reserve(AGENT, TransactionId(new_id()), usd(100), at=now())

    assert [detail for *_, detail in findings()] == ["no Transaction, but money is still reserved for it"]


@pytest.mark.parametrize("status", [S.CREATED, S.AWAITING_MPESA, S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT])
def test_a_deposit_on_its_way_without_a_reservation_is_found(status):
    a_stored_deposit(status)
    deposit = a_stored_deposit(status)
    with unit_of_work():
        deposits.reservations.release([deposit.id], at=now())

    assert findings() == [("reservations", row(deposit), f"{status}, but its payout is not reserved")]


def test_of_many_wrong_rows_of_one_kind_the_first_is_named(broken):
    wrong = sorted(a_stored_deposit(S.COMPLETED).id for _ in range(5))
    broken("DELETE FROM ledger_entries WHERE purpose = 'deposit_sent'")

    assert [where for check, where, _ in findings()] == [f"transactions {wrong[0]}"]


def test_the_command_names_the_difference_and_exits_with_one(broken, capsys):
    a_stored_deposit(S.COMPLETED)
    call_command("verify_ledger", "--json")
    assert json.loads(capsys.readouterr().out)["checks"][-3:] == ["statuses", "on_the_way", "reservations"]
    broken("UPDATE transactions SET status = 'CREATED' WHERE id = %s", a_stored_deposit(S.FAILED).id)

    with pytest.raises(SystemExit) as ended:
        call_command("verify_ledger", "--json")

    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1
    assert (told["ok"], [finding["check"] for finding in told["findings"]]) == (False, ["reservations"])

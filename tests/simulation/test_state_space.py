"""Both life cycles, exhaustively: no state without a way to an end, no path with two effects."""

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import pytest

from payments.application.deposit import DepositSaga
from payments.application.withdrawal import WithdrawalSaga
from payments.domain.transaction import FINAL, NEXT, TransactionStatus as S, TransactionType
from shared_kernel.domain.requests import DerivPlatform
from tests.simulation.process import prepare
from tests.simulation.state_space import Walk

SAGAS = {TransactionType.DEPOSIT: DepositSaga, TransactionType.WITHDRAWAL: WithdrawalSaga}


@pytest.mark.parametrize("type", TransactionType)
def test_from_every_status_of_the_table_there_is_a_way_to_an_end_and_to_a_person(type: TransactionType):
    table = NEXT[type]
    ends: set[S] = {status for status in table if status in FINAL}
    while more := {status for status, after in table.items() if after & ends} - ends:
        ends |= more

    assert set(table) == ends
    to_a_person = {status for status, after in table.items() if S.NEEDS_ATTENTION in after}
    assert set(table) - to_a_person == {S.REJECTED, S.UNDER_REVIEW, S.NEEDS_ATTENTION}
    assert {after for each in table.values() for after in each} | {S.CREATED, S.UNDER_REVIEW} == set(table)


@pytest.mark.timeout(900)
def test_no_reachable_state_is_without_an_end_and_no_path_has_two_effects(capsys: pytest.CaptureFixture[str]):
    cases = list(product(TransactionType, DerivPlatform))
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn"), initializer=prepare) as pool:
        walks = list(pool.map(walked, *zip(*cases, strict=True)))

    with capsys.disabled():
        print()
        for (type, platform), (states, edges, _) in zip(cases, walks, strict=True):
            print(f"{type} on {platform}: {states} states, {edges} ways between them")
    for (type, platform), (_, _, statuses) in zip(cases, walks, strict=True):
        # a review comes with identity's part; nothing of a withdrawal rejects after it was accepted
        never = {S.UNDER_REVIEW} | ({S.REJECTED} if type is TransactionType.WITHDRAWAL else set())
        assert statuses == {str(status) for status in set(NEXT[type]) - never}, (type, platform)


def walked(type: TransactionType, platform: DerivPlatform) -> tuple[int, int, set[str]]:
    """How many states there are, how many ways between them, and the statuses among them."""
    walk = Walk(SAGAS[type], platform)
    walk.all()
    return len(walk.seen), walk.edges, walk.statuses

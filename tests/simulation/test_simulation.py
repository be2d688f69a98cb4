"""A thousand seeds keep every promise; a seed is always the same run; each broken variant is found out."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context

import pytest

from tests.simulation import many
from tests.simulation.coverage import reachable, table
from tests.simulation.faults import Weather
from tests.simulation.process import find, prepare
from tests.simulation.run import simulate
from tests.simulation.variants import VARIANTS

SEEDS = range(1000)
MOST = 200  # seeds in which a variant must be found out


@pytest.mark.timeout(900)
def test_whatever_crashes_repeats_reorders_lies_or_times_out_the_promises_are_kept(capsys: pytest.CaptureFixture[str]):
    findings = many.run(SEEDS)

    with capsys.disabled():
        print(f"\n{findings.summary()}\n{table(findings.cells)}")
    if findings.broken:
        first = min(findings.broken, key=lambda result: result.seed)
        pytest.fail(f"{findings.summary()}\n\n{many.story(first.seed)}")
    empty = [cell for cell in reachable() if not findings.cells[cell]]
    assert not empty, f"never exercised: {empty}"
    assert all(findings.faults[fault] for fault in Weather.CHOICES), findings.faults


@pytest.mark.timeout(600)
def test_each_broken_variant_is_found_out(capsys: pytest.CaptureFixture[str]):
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn"), initializer=prepare) as pool:
        found = dict(zip(VARIANTS, pool.map(find, VARIANTS, [MOST] * len(VARIANTS)), strict=True))

    with capsys.disabled():
        print()
        for variant, result in found.items():
            print(f"{variant:34}" + (f"seed {result.seed}: {result.broken[:90]}" if result else "NOT FOUND"))
    assert [variant for variant, result in found.items() if result is None] == []


def test_a_seed_is_the_same_run_in_every_process():
    code = (
        "from tests.simulation.process import prepare; prepare(); from tests.simulation.test_simulation import told; "
    )
    told_by = {
        subprocess.run(
            [sys.executable, "-c", f"{code}print(told())"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for hash_seed in ("1", "2", "3")
    }  # fmt: skip

    assert len(told_by) == 1


def told() -> str:
    """A digest of some whole stories."""
    lines = "\n".join(str(line) for seed in (3, 7, 11, 19) for line in simulate(seed, telling=True).story)
    return sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TimeOutTakenForFailure", ("writes", "due in", "is known")),
        ("ProviderKeyNotUnique", ("writes", "due in", "is known", "PROVIDER")),  # it is found where money has moved
    ],
)
def test_a_broken_promise_is_told_as_a_story_of_its_transaction(name: str, words: tuple[str, ...]):
    result = many.first_find(VARIANTS[name], MOST)
    assert result is not None

    story = many.story(result.seed, VARIANTS[name])

    assert "BROKEN" in story.splitlines()[-1]
    assert all(word in story for word in words)

"""docker-compose.yml: whatever seals, or looks at seals, has the anchor's volume, where SEAL_ANCHOR says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).resolve().parents[2] / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def queues(service: dict[str, Any]) -> set[str]:
    """Those that a service works on."""
    words = service.get("command", [])
    return set(words[words.index("-Q") + 1].split(",")) if "-Q" in words else set()


def anchors(service: dict[str, Any]) -> list[str]:
    """How a service mounts the anchor: where, and `ro`."""
    mounts = [mount.partition(":") for mount in service.get("volumes", []) if isinstance(mount, str)]
    return [place for volume, _, place in mounts if volume == "anchor"]


def those_that_seal() -> set[str]:
    queue = settings.CELERY_TASK_ROUTES["shared_kernel.workers.seal_rows"]["queue"]
    return {name for name, service in SERVICES.items() if queue in queues(service)}


def test_there_is_a_service_for_each_queue_and_one_that_migrates():
    worked_on = set().union(*map(queues, SERVICES.values()))

    assert {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()} <= worked_on
    assert those_that_seal()
    assert "migrate" in SERVICES["migrate"]["command"]


def test_what_seals_and_what_migrates_and_verifies_can_write_the_anchor():
    for name in {*those_that_seal(), "migrate"}:
        assert anchors(SERVICES[name]) == [SERVICES[name]["environment"]["SEAL_ANCHOR"]], name


def test_the_back_office_reads_the_anchor_and_can_not_write_it():
    assert anchors(SERVICES["api"]) == [f"{SERVICES['api']['environment']['SEAL_ANCHOR']}:ro"]


def test_the_anchor_is_a_volume_that_outlives_containers_and_nobody_else_has_it():
    assert "anchor" in COMPOSE["volumes"]
    assert {name for name, service in SERVICES.items() if anchors(service)} == {*those_that_seal(), "migrate", "api"}


@pytest.mark.parametrize("name", ["api", "migrate", "steps"])
def test_each_of_them_knows_the_key_of_the_anchor(name):
    assert {"SEAL_ANCHOR", "SEAL_ANCHOR_KEY"} <= set(SERVICES[name]["environment"])

"""Runs M-Pesa and Deriv, simulated, as real servers on this machine until it is stopped. Never in production."""

import asyncio
import json
import secrets
import signal
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deriv_integration.simulator.server import DerivSimulator
from mpesa_integration.simulator.server import MpesaSimulator
from shared_kernel.simulator import server

LOOPBACK = "127.0.0.1"


class Command(BaseCommand):
    help = "Runs the providers' simulators: M-Pesa, Deriv over WebSocket v3 and REST. Stops on SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", default=LOOPBACK, help="the address to listen on; others than loopback: containers"
        )
        parser.add_argument("--mpesa-port", type=port, default=8801, help="0 takes a free one")
        parser.add_argument("--deriv-ws-port", type=port, default=8802, help="0 takes a free one")
        parser.add_argument("--deriv-rest-port", type=port, default=8803, help="0 takes a free one")
        parser.add_argument("--no-limits", action="store_true", help="without rate limits and duplicate guards")
        parser.add_argument("--seed", type=int, help="of chance, and of where ids begin; else another one each time")
        parser.add_argument("--json", action="store_true", help="print one JSON line with the ports once they answer")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.APP_ENV == "production":
            raise CommandError("the simulators are never run in production", returncode=2)
        limits = not options["no_limits"]
        # the same receipts and entry ids once more would be refused as counted already
        seed = secrets.randbits(32) if options["seed"] is None else options["seed"]
        mpesa = MpesaSimulator(
            consumer_key=settings.MPESA_CONSUMER_KEY,
            consumer_secret=settings.MPESA_CONSUMER_SECRET,
            shortcode=settings.MPESA_SHORTCODE,
            passkey=settings.MPESA_PASSKEY,
            b2c_shortcode=settings.MPESA_B2C_SHORTCODE,
            initiator_name=settings.MPESA_INITIATOR_NAME,
            initiator_password=settings.MPESA_INITIATOR_PASSWORD,
            deposits_to="working",
            rate_per_s=20 if limits else None,
            duplicate_guard=limits,
            customer_limits=limits,
            seed=seed,
        )
        deriv = DerivSimulator(
            agents=agents_on("ws_v3"),
            rest_agents=agents_on("rest"),
            limits=limits,
            duplicate_guard_s=2.0 if limits else 0.0,
            seed=seed,
        )
        apps = {"mpesa": mpesa.app, "deriv_ws": deriv.ws_app, "deriv_rest": deriv.rest_app}
        sockets = {name: bound(options["host"], options[f"{name}_port"]) for name in apps}
        ports = {name: opened.getsockname()[1] for name, opened in sockets.items()}
        servers = {name: server(apps[name], port=ports[name]) for name in apps}
        asyncio.run(self._serve(servers, sockets, as_json=options["json"]))

    async def _serve(self, servers: dict[str, Any], sockets: dict[str, socket.socket], *, as_json: bool) -> None:
        running = [asyncio.create_task(one.serve(sockets=[sockets[name]])) for name, one in servers.items()]
        while not all(one.started for one in servers.values()) and not any(task.done() for task in running):
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        for which in (signal.SIGTERM, signal.SIGINT):  # after the servers', which would stop only one of them
            loop.add_signal_handler(which, stop, servers)
        self._tell({name: one.getsockname()[1] for name, one in sockets.items()}, as_json=as_json)
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop(servers)
            await asyncio.gather(*running)

    def _tell(self, ports: dict[str, int], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(ports))
        else:
            self.stdout.write(f"M-Pesa: http://{LOOPBACK}:{ports['mpesa']}")
            self.stdout.write(f"Deriv v3: ws://{LOOPBACK}:{ports['deriv_ws']}/websockets/v3")
            self.stdout.write(f"Deriv REST: http://{LOOPBACK}:{ports['deriv_rest']}")
        self.stdout.flush()


def agents_on(platform: str) -> dict[str, str]:
    """The agents that PenPay has on one platform, with their tokens, by login id (`ws_v3`) or agent id (`rest`)."""
    agents = [agent for agent in settings.DERIV_AGENTS if agent["platform"] == platform]
    return {str(agent.get("agent_id") or agent["loginid"]): agent["token"] for agent in agents}


def stop(servers: dict[str, Any]) -> None:
    """Asks every server to end what it is doing and leave."""
    for one in servers.values():
        one.should_exit = True


def port(text: str) -> int:
    """A TCP port from 0 to 65535. Raises `ValueError`."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def bound(host: str, number: int) -> socket.socket:
    """A socket on this address and port, so that a taken one is known before anything starts. Raises `CommandError`."""
    # asyncio switches Nagle's algorithm off only for sockets that name their protocol: else each answer waits 40 ms.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, number))
    except OSError as error:
        opened.close()
        raise CommandError(f"port {number} can't be used: {error.strerror}", returncode=2) from error
    return opened

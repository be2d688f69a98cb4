"""HTTP to Daraja: one request and its whole answer; what the network does is a value."""

from mpesa_integration.domain.answers import Answer, Failure
from shared_kernel.infrastructure import http

TIMEOUT = http.TIMEOUT


def send(
    base_url: str,
    method: str,
    path: str,
    authorization: str,
    content: bytes | None = None,
    give_up_at: float | None = None,
) -> Answer:
    """Never raises for what the network does: that is the answer's `failure`."""
    headers = {"Authorization": authorization}
    try:
        reply = http.exchange(method, base_url, path, headers, content, give_up_at=give_up_at, timeout=TIMEOUT)
    except http.TooLate:
        return Answer(0, failure=Failure.TOO_LATE)
    except http.NotConnected as error:
        return Answer(0, failure=Failure.NOT_CONNECTED, detail=str(error))
    except http.NoAnswer as error:
        return Answer(0, failure=Failure.NO_ANSWER, detail=str(error))
    return Answer.of(reply.status, reply.text)

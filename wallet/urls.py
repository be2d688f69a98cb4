"""Where the REST edge of the wallet is found, under `/api/v1/`."""

from django.urls import URLPattern, path

from wallet import api


def patterns(holder_of: api.HolderOf) -> list[URLPattern]:
    """`holder_of` tells of a customer's id what a statement may show of them: this context knows ids only."""
    return [
        path("wallet/balances", api.Balances.as_view()),
        path("wallet/statement", api.Statement.as_view(holder_of=holder_of)),
    ]

"""What ties a customer to PenPay, asked of the contexts that know: identity, which erases, knows none of them."""

from dataclasses import dataclass

from identity.facade import Ties
from payments.facade import queries
from shared_kernel.domain.identifiers import UserId
from wallet.facade import customer_balances


@dataclass(frozen=True)
class AllTies:
    """`CustomerTies` over payments and wallet."""

    def of(self, user: UserId) -> Ties:
        unfinished, last_moved_at = queries.unfinished_of(user)
        balances = customer_balances(str(user))
        found = [f"{unfinished} Transactions are not finished"] if unfinished else []
        if suspended := queries.in_suspense_of(user):
            found.append(f"{suspended} movements of their money lie in suspense")
        found += [f"{one.currency} is on its way to or from the customer" for one in balances if one.in_transit]
        found += [f"the customer owes {one.currency}" for one in balances if one.owed]
        return Ties(tuple(found), last_moved_at is not None or bool(balances), last_moved_at)


def is_tied(user: UserId) -> bool:
    """`settings.OPEN_PAYMENTS`: closing an account waits for the same as erasing it; in the caller's unit of work."""
    return bool(AllTies().of(user).open)

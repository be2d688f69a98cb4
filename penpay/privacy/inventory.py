"""The data inventory: every table of every app, and every column that tells something of a customer.

`tests/test_data_inventory.py` holds it to the models, so that a column that is added has to be given its place here;
`export_subject` and docs/data-inventory.md are made of it. A table is personal if a row of it can be led back to one
customer. Staff are known by their ids in columns that say who decided; those tables, and these, are `OfStaff`.
"""

from penpay.privacy.model import By, Entry, Impersonal, Kind as K, OfStaff, Path, Personal, kinds

MINE = Path("user_id")
MY_TRANSACTION = Path("transaction_id", By.TRANSACTION)
MOVING = "carrying out what the customer asked for, and proving it"
CARE = "due diligence: who it is whose money moves"
SAFE = "that only the customer, on their own device, moves their money"

INVENTORY: dict[str, Entry] = {
    # --- identity ---
    "identity.User": Personal(
        why=SAFE, kept="aml_records", of=(Path("pk"),),
        data=kinds(K.CONTACT, "phone", "phone_verified_at", why="M-Pesa pays from and to this number")
        | kinds(K.CONTACT, "email", "email_verified_at", why="telling the customer", kept="until_erased")
        | kinds(K.INDEX, "phone_index", "email_index", kept="until_erased")
        | kinds(K.SECRET, "password", kept="until_erased")
        | kinds(K.CONDUCT, "created_at", "last_login", "is_active", "restricted_at", "erase_after", "closed_at")
        | kinds(K.CONDUCT, "phone_changed_at", why="a large payout to a number just changed waits")
        | kinds(K.CONDUCT, "totp_removed_at", why="a large payout waits after that, too")
        | kinds(K.CONDUCT, "username", why="a random handle; of staff a name")
        | kinds(K.GUARDED, "frozen_at", why="stopping money where the law says so"),
        other=("id", "is_superuser", "is_staff", "token_epoch"),
    ),
    "identity.Profile": Personal(
        why=CARE, kept="aml_records", of=(MINE,),
        data=kinds(K.IDENTITY, "full_name", "date_of_birth"), other=("user", "updated_at"),
    ),
    "identity.Address": Personal(
        why=CARE, kept="aml_records", of=(MINE,),
        data=kinds(K.CONTACT, "line", "town", "county", "postal_code", "country"), other=("id", "user", "created_at"),
    ),
    "identity.Compliance": Personal(
        why=CARE, kept="aml_records", of=(MINE,),
        data=kinds(K.STANDING, "kyc_status", "kyc_status_at", "kyc_expires_at", "tier")
        | kinds(K.GUARDED, "pep_status", "pep_status_at", "screened_at", why="screening, which nobody is told of"),
        other=("user",),
    ),
    "identity.ParticularsReveal": Personal(
        why="who was shown personal data in clear, and why", kept="for_ever", of=(MINE,),
        data=kinds(K.CONDUCT, "user_id", "at", "used_at")
        | kinds(K.GUARDED, "by", "why", "approved_by", "approved_at", why="staff's review"),
        other=("id", "expires_at"),
    ),
    "identity.KycDocument": Personal(
        why="one person, one account", kept="aml_records", of=(MINE,),
        data=kinds(K.INDEX, "document_index") | kinds(K.CONDUCT, "claimed_at"), other=("id", "user"),
    ),
    "identity.KycSnapshot": Personal(
        why=CARE, kept="aml_records", of=(MINE,),
        data=kinds(
            K.IDENTITY, "full_name", "id_type", "id_country", "id_number", "id_issued_on", "id_expires_on",
            "date_of_birth", "gender", "nationality", "residence", "kra_pin",
        )
        | kinds(K.CONDUCT, "submitted_at"),
        other=("id", "user", "version", "document"),
    ),
    "identity.KycImage": Personal(
        why=CARE, kept="aml_records", of=(Path("snapshot__user_id"),),
        data=kinds(K.IDENTITY, "side", "width", "height") | kinds(K.SECRET, "key")
        | kinds(K.SECRET, "content", why="the photo, under `key`: staff show it to its customer, no file does"),
        other=("id", "snapshot"),
    ),
    "identity.PhoneVerification": Personal(
        why="proving that the number is the customer's", kept="one_time_codes", of=(MINE,),
        data=kinds(K.CONTACT, "phone") | kinds(K.SECRET, "code_hash")
        | kinds(K.CONDUCT, "purpose", "asker", "created_at", "sent_at", "expires_at", "attempts", "consumed_at"),
        other=("id", "user", "open"),
    ),
    "identity.EmailVerification": Personal(
        why="proving that the address is the customer's", kept="email_codes", of=(MINE,),
        data=kinds(K.CONTACT, "email") | kinds(K.SECRET, "code_hash")
        | kinds(K.CONDUCT, "purpose", "asker", "created_at", "sent_at", "expires_at", "attempts", "consumed_at"),
        other=("id", "user", "open"),
    ),
    "identity.TotpFactor": Personal(
        why=SAFE, kept="until_erased", of=(MINE,),
        data=kinds(K.SECRET, "secret", "last_counter") | kinds(K.CONDUCT, "created_at", "confirmed_at")
        | kinds(K.CONDUCT, *(f"{use}_{name}" for use in ("sign_in", "step_up")
                             for name in ("failures", "locks", "failed_at", "locked_until")), why="few wrong codes"),
        other=("user",),
    ),
    "identity.TotpRemoval": Personal(
        why="two people take a lost authenticator away", kept="for_ever", of=(MINE,),
        data=kinds(K.CONDUCT, "at", "used_at")
        | kinds(K.GUARDED, "by", "why", "approved_by", "approved_at", why="staff's review"),
        other=("id", "user_id", "expires_at"),
    ),
    "identity.Notice": Personal(
        why="telling the customer what was changed of their account", kept="notices", of=(MINE,),
        data=kinds(K.CONTACT, "target", why="to whom it goes; emptied once it has gone")
        | kinds(K.CONDUCT, "kind", "channel", "created_at", "sent_at"),
        other=("id", "user"),
    ),
    "identity.DerivLogin": Personal(
        why="deposits go to the customer's own account, and to no other", kept="aml_records", of=(MINE,),
        data=kinds(K.ACCOUNT, "platform", "account", "currency") | kinds(K.INDEX, "account_index")
        | kinds(K.IDENTITY, "full_name", "name_matches")
        | kinds(K.SECRET, "token", "refresh_token", why="withdrawing in the customer's name", kept="until_erased")
        | kinds(K.CONDUCT, "bound_at", "checked_at", "revoked_at", "expires_at", "refreshed_at", "lost_at"),
        other=("id", "user", "active_for", "refreshing_until"),
    ),
    "identity.DerivAuthorization": Personal(
        why="that who binds a Deriv account is who signed in to it", kept="deriv_authorizations", of=(MINE,),
        data=kinds(K.SECRET, "state_hash", "verifier", "code_hash")
        | kinds(K.CONDUCT, "session_id", "platform", "created_at", "expires_at", "returned_at", "tries"),
        other=("user",),
    ),
    "identity.Device": Personal(
        why=SAFE, kept="until_erased", of=(MINE,),
        data=kinds(K.DEVICE, "client_id", "name", "platform") | kinds(K.SECRET, "secret_hash")
        | kinds(K.CONDUCT, "created_at", "last_seen_at", "revoked_at", kept="aml_records"),
        other=("id", "user", "slot"),
    ),
    "identity.Session": Personal(
        why=SAFE, kept="sessions", of=(MINE,),
        data=kinds(K.CONDUCT, "device", "created_at", "expires_at", "stepped_up_at", "ended_at", "ended_by",
                   "password_tries"),
        other=("id", "user", "token_epoch"),
    ),
    "identity.RefreshToken": Personal(
        why=SAFE, kept="sessions", of=(Path("family__user_id"),),
        data=kinds(K.SECRET, "hash") | kinds(K.CONDUCT, "created_at", "expires_at", "used_at", "revoked_at"),
        other=("id", "family", "replaced_by"),
    ),
    "identity.StaffFactor": OfStaff(why="the second factor of a member of staff"),
    "identity.StaffRecoveryCode": OfStaff(why="what stands in for it, once"),
    "identity.StaffSignInTries": OfStaff(why="guessing at the back-office ends"),
    # --- payments ---
    "payments.Transaction": Personal(
        why=MOVING, kept="aml_records", of=(MINE,),
        data=kinds(
            K.MONEY, "id", "type", "status", "amount", "currency", "payout_amount", "payout_currency", "rate",
            "rate_locked_at", "min_payout", "confirmed_at", "expected_by", "failure_code", "deriv_transfer_id",
            "credit_back_id", "mpesa_receipt", "outflow", "paid_amount", "refund_by_b2c", "created_at", "updated_at",
            "ordered_while_waiting",
        )
        | kinds(K.CONTACT, "phone") | kinds(K.INDEX, "phone_index")
        | kinds(K.ACCOUNT, "platform", "deriv_account", "deriv_currency", "login_checked_at")
        | kinds(K.GUARDED, "failure_detail", "attention_from", "held_by", "held_why", "held_at", why="staff's review"),
        other=(
            "lane", "user_id", "quote_id", "version", "step_version", "mid", "rate_source", "rate_expires_at", "agent",
            "priority", "behind", "turn_at", "next_step_at", "leased_until", "attempts", "failures",
        ),
    ),
    "payments.Quote": Personal(
        why="what was offered, and so what was agreed", kept="aml_records", of=(MINE,),
        data=kinds(
            K.MONEY, "type", "send_amount", "send_currency", "get_amount", "get_currency", "rate", "created_at",
            "expires_at", "transaction_id",
        ),
        other=("id", "user_id", "mid", "rate_source", "agent"),
    ),
    "payments.FloatReservation": Personal(
        why="paying out only what there is", kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(K.MONEY, "transaction_id", "amount", "created_at", "released_at"), other=("account",),
    ),
    "payments.OrphanMovement": Personal(
        why="giving money back to whom it belongs", kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(K.MONEY, "provider", "movement", "amount", "currency", "transaction_id", "moved_at", "settled_at")
        | kinds(K.MESSAGE, "reference"),
        other=("id", "account", "found_at", "owner"),
    ),
    "payments.Proposal": Personal(
        why="two people decide where the sagas cannot", kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(K.MONEY, "transaction_id", "type", "amount", "currency") | kinds(K.CONTACT, "phone")
        | kinds(K.ACCOUNT, "reference", "platform", "deriv_account", "deriv_currency")
        | kinds(
            K.GUARDED, "decision", "by", "why", "at", "approved_by", "approved_at", "rejected_by", "rejected_at",
            why="staff's review",
        ),
        other=("id", "request_id"),
    ),
    "payments.SuspenseSettlement": Personal(
        why="giving money back to whom it belongs", kept="for_ever", of=(MY_TRANSACTION,),
        data=kinds(K.MONEY, "kind", "amount", "currency", "transaction_id", "status")
        | kinds(K.GUARDED, "by", "why", "at", "decided_by", "decided_at", why="staff's review"),
        other=("id", "item", "movement", "proof"),
    ),
    "payments.ReconciliationBreak": Personal(
        why="books that agree with the providers'", kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(K.MONEY, "kind", "provider", "theirs", "ours", "currency", "transaction_id", "at", "status")
        | kinds(K.GUARDED, "owner", "resolution", "resolved_by", "why", "approved_by", why="staff's review"),
        other=(
            "id", "account", "sub_account", "known_as", "movement", "reference", "provider_key", "opened_at",
            "resolved_at", "closed_at",
        ),
    ),
    "payments.Reveal": Personal(
        why="who was shown personal data in clear, and why", kept="for_ever", of=(MY_TRANSACTION,),
        data=kinds(K.CONDUCT, "transaction_id", "at", "used_at")
        | kinds(K.GUARDED, "by", "why", "approved_by", "approved_at", why="staff's review"),
        other=("id", "expires_at"),
    ),
    # --- providers ---
    "mpesa_integration.MpesaRequest": Personal(
        why=MOVING, kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(
            K.MONEY, "transaction_id", "leg", "attempt", "reference", "amount", "currency", "status", "code",
            "created_at", "outcome_at", "receipt",
        )
        | kinds(K.CONTACT, "phone") | kinds(K.INDEX, "open_phone", "checkout_index")
        | kinds(K.MESSAGE, "checkout_request_id", "answer")
        | kinds(K.SECRET, "callback_hash", "timeout_hash"),
        other=(
            "id", "about", "open_outflow", "shortcode", "fence", "send_before", "asked_at", "absences", "was_unknown",
            "conversation_id", "merchant_request_id",
        ),
    ),
    "mpesa_integration.MpesaCallback": Personal(
        why=MOVING, kept="aml_records", of=(Path("request__transaction_id", By.TRANSACTION),),
        data=kinds(K.MONEY, "received_at", "result_code", "amount", "receipt", "fee") | kinds(K.MESSAGE, "body")
        | kinds(K.GUARDED, "headers", "peer", why="the provider's own servers: that the message is theirs"),
        other=("id", "request", "kind", "last_received_at", "times", "sha256", "verdict", "fate", "blame"),
    ),
    "deriv_integration.DerivTransfer": Personal(
        why=MOVING, kept="aml_records", of=(MY_TRANSACTION,),
        data=kinds(
            K.MONEY, "transaction_id", "leg", "attempt", "reference", "amount", "currency", "status", "code",
            "created_at", "outcome_at", "provider_transaction_id",
        )
        | kinds(K.ACCOUNT, "platform", "account") | kinds(K.MESSAGE, "answer")
        | kinds(K.SECRET, "verification_code", why="one withdrawal; wiped with its outcome, within the hour"),
        other=(
            "id", "agent", "fence", "send_before", "asked_at", "absences", "was_unknown", "open_outflow",
        ),
    ),
    # --- wallet ---
    "wallet.LedgerAccount": Personal(
        why="what is held for a customer, and what they owe", kept="for_ever", of=(Path("owner", By.TEXT),),
        data=kinds(K.MONEY, "kind", "currency", "opened_at"), other=("id", "owner"),
    ),
    "wallet.LedgerEntry": Personal(
        why="the books", kept="for_ever",
        of=(Path("debit_account__owner", By.TEXT), Path("credit_account__owner", By.TEXT)),
        data=kinds(
            K.MONEY, "purpose", "debit_account", "credit_account", "amount", "currency", "transaction_id", "reference",
            "effective_at", "recorded_at",
        ),
        other=("seq", "id", "journal_id", "provider_key", "reverses"),
    ),
    "wallet.LedgerBalance": Personal(
        why="the books", kept="for_ever", of=(Path("account__owner", By.TEXT),),
        data=kinds(K.MONEY, "account", "credit_balance"), other=("slot",),
    ),
    # --- kernel ---
    "shared_kernel.AuditLog": Personal(
        why="who did what, from where: proof, and finding an intruder", kept="for_ever",
        of=(
            Path("target_id", By.TEXT, {"target_type": "user", "actor": "user:{user}"}),
            Path("target_id", By.TRANSACTION_TEXT, {"target_type": "transaction", "actor": "user:{user}"}),
        ),
        data=kinds(K.CONDUCT, "action", "target_type", "target_id", "actor", "device", "address", "at")
        | kinds(K.GUARDED, "before", "after", "why", "details", why="reasons, staff's too"),
        other=("seq", "request_id"),
    ),
    "shared_kernel.DomainEvent": Personal(
        why="one step follows another", kept="for_ever",
        of=(Path("aggregate_id"), Path("aggregate_id", By.TRANSACTION)),
        data=kinds(K.CONDUCT, "type", "aggregate_id", "payload", "occurred_at")
        | kinds(K.GUARDED, "context", "error", why="who acted, staff too; a traceback"),
        other=("seq", "id", "published_at", "attempts", "next_attempt_at", "parked_at", "discarded_at"),
    ),
    "shared_kernel.IdempotencyKey": Personal(
        why="a repeated request moves money once", kept="idempotency_keys", of=(Path("scope", By.PREFIX),),
        data=kinds(K.CONDUCT, "scope", "key", "answer", "created_at"), other=("id", "fingerprint", "result"),
    ),
    # --- of staff alone ---
    "admin.LogEntry": OfStaff("what Django's own pages would change; ours change nothing"),
    "auth.Group": OfStaff("the groups of staff"),
    "auth.Group_permissions": OfStaff("what a group may do"),
    "identity.User_groups": OfStaff("who of staff is in which group"),
    "identity.User_user_permissions": OfStaff("what one of staff may do beyond their groups"),
    "sessions.Session": OfStaff("sign-ins of the back-office"),
    "payments.ExchangeRate": OfStaff("the rates, with who set and who approved them"),
    "payments.ReconciliationRun": OfStaff("what a run over a provider's book found, with who ran it"),
    "wallet.TreasuryMovement": OfStaff("the house's own money, with who proposed and who approved"),
    "shared_kernel.AnchorContinuation": OfStaff("anchors that two people began anew"),
    "mpesa_integration.MpesaInitiator": OfStaff("which API operators are stopped; they are our own"),
    # --- of nobody ---
    "auth.Permission": Impersonal("names of rights"),
    "contenttypes.ContentType": Impersonal("names of tables"),
    "deriv_integration.DerivAgent": Impersonal("which of our own agent credentials are frozen"),
    "mpesa_integration.MpesaBalance": Impersonal("what our own shortcodes hold"),
    "mpesa_integration.MpesaToken": Impersonal("our own access token, encrypted"),
    "payments.BalanceDrift": Impersonal("our own accounts apart from the ledger"),
    "payments.FloatAccount": Impersonal("what is promised of our own accounts"),
    "payments.LimitRule": Impersonal("limits by tier and provider"),
    "payments.ProviderBalance": Impersonal("what our own accounts hold"),
    "payments.SuspenseClaim": Impersonal("which settlement speaks of which movement"),
    "shared_kernel.RateLimitCounter": Impersonal("how often something was tried, under hashes, for some hours"),
    "shared_kernel.Lease": Impersonal("which process may do what, for seconds"),
    "shared_kernel.Seal": Impersonal("hashes over rows"),
}  # fmt: skip

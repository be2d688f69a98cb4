"""Where the REST edge of payments is found, under `/api/v1/`."""

from django.urls import path

from payments import api

urlpatterns = [
    path("quotes", api.QuotesView.as_view()),
    path("deposits", api.Deposits.as_view()),
    path("withdrawals/verification", api.WithdrawalVerification.as_view()),
    path("withdrawals", api.Withdrawals.as_view()),
    path("transactions", api.Transactions.as_view()),
    path("transactions/<uuid:id>", api.TransactionDetail.as_view()),
    path("limits", api.LimitsView.as_view()),
]

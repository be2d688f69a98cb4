"""Where M-Pesa calls back, under `/cb/`. All of it is answered here, so that no other part logs a path with a token."""

from django.urls import path

from mpesa_integration.api import callback

urlpatterns = [
    path("<str:kind>/<path:token>", callback),
    path("<path:kind>", callback, {"token": ""}),
]

"""Where M-Pesa calls back. Whatever stands behind `/cb/` is answered here, so that no other part logs its path."""

from django.urls import path, re_path

from mpesa_integration.api import callback

urlpatterns = [
    path("cb/<str:kind>/<path:token>", callback),
    re_path(r"^cb(?:/(?P<kind>[^/]*)/?)?$", lambda request, kind="": callback(request, kind or "", "")),
]

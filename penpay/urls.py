"""The map from requests to views."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.negotiation import DefaultContentNegotiation

from identity.api import deriv_return, staff
from identity.facade import queries as people
from penpay import finance_pages, health, openapi  # noqa: F401 - the latter registers itself by being imported
from wallet import urls as wallet

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include("identity.urls")),
    path("api/v1/", include("payments.urls")),
    path("api/v1/", include(wallet.patterns(people.statement_holder))),
    path("cb/", include("mpesa_integration.urls")),
    path("oauth/deriv/return", deriv_return.came_back),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("metrics", health.metrics),
    path("admin/", include(staff)),
    path("admin/", admin.site.admin_view(finance_pages.index)),
    path("admin/finance/", include(finance_pages)),
    path("admin/", admin.site.urls),
]
if settings.API_DOCS:
    schema = SpectacularAPIView.as_view(content_negotiation_class=DefaultContentNegotiation)  # YAML, or ?format=json
    docs = SpectacularSwaggerSplitView.as_view(
        content_negotiation_class=DefaultContentNegotiation,
        http_method_names=["get", "head"],  # OPTIONS would look for a template
    )
    urlpatterns += [path("api/v1/schema/", schema, name="schema"), path("api/v1/docs/", docs, name="docs")]

handler400 = "shared_kernel.api.problems.bad_request"
handler403 = "shared_kernel.api.problems.permission_denied"
handler404 = "shared_kernel.api.problems.page_not_found"
handler500 = "shared_kernel.api.problems.server_error"

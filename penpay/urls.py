"""The map from requests to views."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from penpay import health

urlpatterns: list[URLPattern | URLResolver] = [
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
]
for prefix, urls in (("api/v1/", "identity.urls"), ("api/v1/", "payments.urls"), ("cb/", "mpesa_integration.urls")):
    try:
        urlpatterns.append(path(prefix, include(urls)))
    except ImportError:
        continue
try:
    import rest_framework.views
except ImportError:
    rest_framework = None
if settings.API_DOCS and rest_framework:
    from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
    from rest_framework.negotiation import DefaultContentNegotiation

    from penpay import openapi

    schema = SpectacularAPIView.as_view(content_negotiation_class=DefaultContentNegotiation)  # YAML, or ?format=json
    docs = SpectacularSwaggerSplitView.as_view(content_negotiation_class=DefaultContentNegotiation)
    urlpatterns += [path("api/v1/schema/", schema, name="schema"), path("api/v1/docs/", docs, name="docs")]

handler400 = "shared_kernel.api.problems.bad_request"
handler403 = "shared_kernel.api.problems.permission_denied"
handler404 = "shared_kernel.api.problems.page_not_found"
handler500 = "shared_kernel.api.problems.server_error"

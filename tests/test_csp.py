"""The content security policy: no page of ours holds anything that a browser would have to block."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from identity.models import User
from identity.tests.factories import PASSWORD
from penpay.headers import DATA, DOCS, PAGES
from shared_kernel.tests.staff import signed_in
from tests.test_admin import TABLES, a_payment

pytestmark = pytest.mark.django_db

ADDRESSES = {"src", "href", "action", "formaction", "data", "poster", "srcset"}


class Page(HTMLParser):
    """What a page loads and where it leads, and what of it `default-src 'self'` would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.blocked: list[str] = []
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        runs = tag == "script" and given.get("type", "") in {"", "module", "text/javascript"}
        if (runs and "src" not in given) or tag in {"style", "base", "object", "embed", "iframe"}:
            self.blocked.append(self.get_starttag_text() or tag)
        for name, value in given.items():
            elsewhere = name in ADDRESSES and re.match(r"\s*([a-z][a-z0-9+.-]*:|//)", value, re.IGNORECASE)
            if name == "style" or name.startswith("on") or elsewhere:
                self.blocked.append(f"<{tag} {name}={value!r}>")
        if tag in {"script", "img"} or (tag == "link" and given.get("rel") != "canonical"):
            self.loads += [given[name] for name in ("src", "href") if name in given]
        if tag == "a":
            self.leads.append(given.get("href", ""))


@pytest.mark.parametrize(
    "blocked",
    [
        "<script>alert(1)</script>",
        "<style>p {}</style>",
        '<p style="color: red">',
        '<p onclick="x()">',
        '<a href="javascript:x()">',
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img src="data:image/png;base64,AAAA">',
        '<form action="https://evil.example/">',
        '<base href="/x/">',
    ],
)
def test_the_walk_would_see_it(blocked):
    assert Page(blocked).blocked


def test_data_that_a_script_reads_is_no_script():
    assert not Page('<script id="x" type="application/json">{}</script><script src="/static/x.js"></script>').blocked


def walked(client: Client, start: str) -> dict[str, Any]:
    """The pages that links lead to, one of each kind: of a table's rows one, of a list's filters each once."""
    found: dict[str, Any] = {}
    kinds, to_see = set(), [start]
    while to_see:
        address = to_see.pop()
        parts = urlsplit(address)
        shape = re.sub(r"/[^/]*\d[^/]*(?=/)", "/<id>", parts.path)
        kind = (shape, tuple(sorted(parse_qs(parts.query, keep_blank_values=True))))
        if kind in kinds or not parts.path.startswith("/admin/") or parts.path.endswith("/logout/"):
            continue
        kinds.add(kind)
        answer = client.get(address, follow=True)
        found[address] = answer
        if is_a_page(answer):
            to_see += [urljoin(address, lead) for lead in Page(answer.content.decode()).leads]
    return found


def is_a_page(answer: Any) -> bool:
    return bool(
        answer["Content-Type"].startswith("text/html") and "attachment" not in answer.get("Content-Disposition", "")
    )


def test_no_page_of_the_back_office_holds_what_its_policy_blocks():
    a_payment()
    client = signed_in(User.objects.create_superuser("boss", "boss@example.org", PASSWORD))

    found = walked(client, "/admin/")
    [documents] = [address for address in found if address.endswith("/documents/")]
    found[documents] = client.post(documents, {"why": "review"})  # by GET it only asks why
    pages = {address: Page(answer.content.decode()) for address, answer in found.items() if is_a_page(answer)}

    paths = {urlsplit(address).path for address in pages}
    for model in TABLES:
        page = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert {reverse(f"{page}_changelist")} <= paths
        assert [path for path in paths if path.startswith(reverse(f"{page}_changelist")) and path.endswith("/change/")]
    assert len(pages) > 2 * len(TABLES)
    for address, shown in pages.items():
        if address.endswith("/evidence/"):  # a file of its own, with its own policy, which knows its one style by hash
            assert shown.blocked == ["<style>"], address
            own = found[address]["Content-Security-Policy"]
            style = re.findall(r"<style>(.*?)</style>", found[address].content.decode(), re.DOTALL)
            hashed = b64encode(sha256(style[0].encode()).digest()).decode()
            assert f"style-src 'sha256-{hashed}'" in own
            assert "default-src 'none'" in own
        else:
            assert shown.blocked == [], address
            within = address.endswith("/documents/")  # images that stand in the page itself
            expected = PAGES.replace("'self'; ", "'self'; img-src 'self' data:; ", 1) if within else PAGES
            assert found[address]["Content-Security-Policy"] == expected, address
    assert "unsafe" not in PAGES
    assert "data:" not in PAGES
    assets = {urljoin(address, load) for address, page in pages.items() for load in page.loads}
    assert len(assets) > 5
    assert {asset: client.get(asset).status_code for asset in assets} == dict.fromkeys(assets, 200)


def test_the_pages_of_the_sign_in_and_of_refusals_hold_nothing_of_that_kind_either():
    User.objects.create_staff("mary", "mary@example.org", PASSWORD)
    client = Client(headers={"Host": "localhost"})
    answers = [client.get("/admin/login/"), client.post("/admin/login/", {"username": "mary", "password": "wrong"})]
    client.post("/admin/login/", {"username": "mary", "password": PASSWORD})
    answers += [client.get("/admin/login/enrol/"), client.post("/admin/login/enrol/", {"code": "000000"})]
    client = signed_in(User.objects.get())
    answers += [client.get(f"/admin/{path}") for path in ("recovery-codes/", "password_change/", "identity/user/", "x")]
    answers += [Client(enforce_csrf_checks=True, headers={"Host": "localhost"}).post("/admin/login/")]
    answers += [client.post("/admin/logout/")]

    assert [answer.status_code for answer in answers] == [200] * 6 + [403, 404, 403, 200]
    for answer in answers:
        assert not Page(answer.content.decode()).blocked, answer.request
        assert answer["Content-Security-Policy"] == PAGES


@pytest.mark.parametrize(
    ("path", "policy"),
    [("/api/v1/docs/", DOCS), ("/api/v1/schema/", DATA), ("/api/v1/me", DATA), ("/health/live", DATA), ("/x", DATA)],
)
def test_data_may_load_nothing_and_the_docs_style_inline_and_nothing_more(path, policy):
    answer = Client(headers={"Host": "localhost"}).get(path)

    assert answer["Content-Security-Policy"] == policy
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer["Permissions-Policy"]
    if policy == DOCS:
        assert set(Page(answer.content.decode()).blocked) == {"<style>"}
        assert "script-src" not in policy
        assert "unsafe-eval" not in policy


def test_files_have_the_headers_too():
    answer = Client(headers={"Host": "localhost"}).get("/static/admin/css/base.css")

    assert answer.status_code == 200
    for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"):
        assert answer[name]
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "no-store" not in answer["Cache-Control"]

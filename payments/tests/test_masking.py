"""What a masker shows: the ends of what is personal, all of what proves something, and nothing of a secret."""

import json

import pytest
from hypothesis import given, strategies as st

from payments.domain.masking import HIDDEN, NEVER, NO_JSON, Masker
from shared_kernel.domain.errors import ILLEGIBLE

MASKED = Masker(False, len, ("254712345678", "Jane Wanjiku", "CR100001"))  # type: ignore[arg-type]
CLEAR = Masker(True, len)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("phone", "254712345678", "+2547****5678"),
        ("phone", "+254712345678", "+2547****5678"),
        ("phone", "0712", HIDDEN),
        ("phone", ILLEGIBLE, ILLEGIBLE),
        ("account", "CR100001", "CR***01"),
        ("account", "jane", HIDDEN),
        ("account", "", ""),
        ("name", "Jane Wanjiku", "J*** W***"),
        ("email", "jane@example.org", "j***@example.org"),
        ("email", "jane", HIDDEN),
    ],
)
def test_personal_data_shows_its_ends(kind, text, shown):
    assert getattr(MASKED, kind)(text) == shown
    in_clear = getattr(CLEAR, kind)(text)
    assert in_clear.removeprefix("+") == text.removeprefix("+")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ws_CO_191220191020363925712345678", "ws_CO_191220191020363925***"),
        ("call +254 712 345 678 or 0733 000 111", "call +2547*** or +2547***"),
        ("to jane@example.org", "to ***"),
        ("jane wanjiku of CR100001", "*** of ***"),
        ("the Janet rate 10867502920 UKV7RT61SV", "the Janet rate 10867502920 UKV7RT61SV"),
        ("paid 254712345678", "paid +2547***"),
        ("ref X712345678X", "ref X***X"),
    ],
)
def test_free_text_keeps_what_proves_and_hides_who(text, shown):
    assert MASKED.text(text) == shown
    assert CLEAR.text(text) == text


def test_a_name_that_nobody_listed_is_hidden_and_its_place_is_kept():
    said = {"Result": {"ResultCode": 0, "Novelty": "Jane", "List": [1, {"Key": "Amount", "Value": 13.5}], "Null": None}}

    shown = MASKED.message(json.dumps(said))

    assert shown == {
        "Result": {"ResultCode": 0, "Novelty": HIDDEN, "List": [HIDDEN, {"Key": "Amount", "Value": 13.5}], "Null": None}
    }


@pytest.mark.parametrize("masker", [MASKED, CLEAR])
@pytest.mark.parametrize(
    "name",
    ["token", "Password", "SecurityCredential", "authorize", "verification_code", "PIN", "api-key", "OTP", "Pass Key"],
)
def test_what_is_named_like_a_secret_is_never_shown_whatever_it_holds(masker, name):
    for value in ("x1", 4711, ["x1"], {"a": "x1"}):
        assert masker.message(json.dumps({name: value, "item": {"Key": name, "Value": value}})) == {
            name: NEVER, "item": {"Key": name, "Value": NEVER},
        }  # fmt: skip
        assert masker.plain({name: value}) == {name: NEVER}


@pytest.mark.parametrize("masker", [MASKED, CLEAR])
def test_what_is_no_json_is_not_shown(masker):
    assert masker.message("<html>Jane") == NO_JSON
    assert masker.message("[" * 100_000) == NO_JSON
    assert masker.message("") == ""
    assert masker.message(ILLEGIBLE) == ILLEGIBLE


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_message_whatever_its_form_breaks_it_or_shows_the_phone(said):
    shown = json.dumps(MASKED.message(json.dumps({"ResultDesc": "to 254712345678", "said": said})))

    assert "712345678" not in shown

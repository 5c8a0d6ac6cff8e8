"""TRUST_OIDC_*: a wrong setting stops the start with a sentence that names the setting."""

import pytest

from shared.config import Oidc, Settings, WrongSetting

GOOD = {"TRUST_OIDC_ISSUER": "https://id.example.com/realms/fleet", "TRUST_OIDC_AUDIENCE": "trust"}


def test_without_the_settings_only_api_keys_are_accepted() -> None:
    assert Settings.from_env({}).oidc is None


def test_issuer_and_audience_are_enough() -> None:
    assert Settings.from_env(GOOD).oidc == Oidc("https://id.example.com/realms/fleet", "trust", None, "org", "role")


def test_client_and_claims_can_be_named() -> None:
    named = {
        **GOOD,
        "TRUST_OIDC_CLIENT_ID": "console",
        "TRUST_OIDC_ORG_CLAIM": "https://example.com/org",
        "TRUST_OIDC_ROLE_CLAIM": "trust_role",
    }
    oidc = Settings.from_env(named).oidc
    assert oidc is not None
    assert (oidc.client_id, oidc.org_claim, oidc.role_claim) == ("console", "https://example.com/org", "trust_role")


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_issuer_and_audience_need_each_other(missing: str) -> None:
    """Without an audience, tokens for every service of the issuer would be accepted."""
    with pytest.raises(WrongSetting, match=f"{missing} is missing"):
        Settings.from_env({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    "issuer",
    [
        "http://id.example.com",
        "id.example.com",
        "https://",
        "https://id.example.com/?x=1",
        "https://id.example.com/#x",
        "https://user@id.example.com",
        "https://id.example.com;script-src *",
        "https://id.example.com 'unsafe-inline'",
        "https://id.example.com:port",
        "file:///etc/passwd",
    ],
)
def test_an_issuer_is_an_https_address(issuer: str) -> None:
    """The address is part of the content-security policy, and keys are fetched from it."""
    with pytest.raises(WrongSetting, match="TRUST_OIDC_ISSUER"):
        Settings.from_env({**GOOD, "TRUST_OIDC_ISSUER": issuer})


def test_plain_http_is_allowed_on_this_machine_only() -> None:
    assert Settings.from_env({**GOOD, "TRUST_OIDC_ISSUER": "http://localhost:8081"}).oidc is not None

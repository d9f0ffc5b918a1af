"""Which providers are reached through a proxy, and what is taken for a proxy's URL."""

from __future__ import annotations

import pytest

from kong_ai_proxy.relay.settings import RelaySettings, proxy_url

PROXY = "http://user:secret@proxy:3128"


@pytest.mark.parametrize(
    ("scheme", "host", "no_proxy", "proxied"),
    [
        ("https", "api.openai.com", "", True),
        ("wss", "api.openai.com", "", True),
        ("http", "api.openai.com", "", False),
        ("https", "localhost", "", False),
        ("https", "127.3.2.1", "", False),
        ("https", "::1", "", False),
        ("https", "api.openai.com", "*", False),
        ("https", "api.openai.com", "example.com, openai.com", False),
        ("https", "api.openai.com", ".openai.com", False),
        ("https", "api.openai.com", "*.openai.com", False),
        ("https", "API.OpenAI.com", "api.OPENAI.com", False),
        ("https", "notopenai.com", "openai.com", True),
        ("https", "openai.com", "api.openai.com", True),
        ("https", "api.openai.com", "openai.com:443", False),
        ("https", "api.openai.com", "openai.com:8443", True),
        ("https", "api.openai.com", "openai.com:x", True),
        ("https", "10.1.2.3", "10.1.2.3", False),
        ("https", "10.1.2.3", "10.1.2.3:443", False),
        ("https", "10.1.2.3", "10.0.0.0/8", False),
        ("https", "10.1.2.3", "2.3", True),
        ("https", "11.1.2.3", "10.0.0.0/8", True),
        ("https", "2001:db8::1", "2001:db8::/32", False),
        ("https", "2001:db8::1", "[2001:db8::1]:443", False),
        ("https", "ten.example", "10.0.0.0/8", True),
        ("https", "api.openai.com", ",. ,", True),
    ],
)
def test_what_is_reached_through_the_proxy(
    scheme: str, host: str, no_proxy: str, proxied: bool
) -> None:
    settings = RelaySettings(https_proxy=PROXY, no_proxy=no_proxy)
    assert settings.proxy_for(scheme, host, 443) == (PROXY if proxied else None)


def test_without_a_proxy_all_is_reached_directly() -> None:
    assert RelaySettings().proxy_for("https", "api.openai.com", 443) is None


def test_a_password_is_not_in_the_representation() -> None:
    assert "secret" not in repr(RelaySettings(https_proxy=PROXY))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128/"),
        ("https://u:p@proxy", "https://u:p@proxy"),
        (" http://[::1]:3128 ", "http://[::1]:3128"),
    ],
)
def test_a_proxys_url(text: str, url: str) -> None:
    assert proxy_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "socks5://u:secret@proxy",
        "http://u:secret@proxy:port",
        "http://u:secret@proxy:70000",
        "http://u:secret@proxy/path",
        "http://u:secret@proxy?q",
        "http://u:secret@pro xy",
        "http://u:secret@pröxy",
        "http://u:secret@[::1",
    ],
)
def test_what_is_no_proxys_url_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected http://HOST:PORT: ") as refusal:
        proxy_url(text)
    assert "secret" not in str(refusal.value)

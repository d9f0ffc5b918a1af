"""Whom TLS connections trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from kong_ai_proxy.auth import trust


def test_certificates_are_loaded_once() -> None:
    found = trust.shared_context(None)
    assert trust.shared_context(None) is found
    assert (found.verify_mode, found.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_who_changes_a_context_has_one_of_its_own() -> None:
    own = trust.context(None)
    own.check_hostname = False
    assert trust.shared_context(None).check_hostname


def test_a_file_that_cannot_be_loaded_is_an_error_each_time(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(OSError, match="No such file"):
        trust.shared_context(str(file))
    file.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        trust.shared_context(str(file))

"""Rules of the way to a mirror that only the mutation check found untested."""

from __future__ import annotations

import pytest

from client_reference.errors import ConfigurationError
from client_reference.transport.policy import parse_mirror


@pytest.mark.parametrize("who", ["acme", "acme:secret", ":secret", ""])
def test_whoever_is_named_before_the_host_is_refused_with_or_without_a_password(who: str) -> None:
    with pytest.raises(ConfigurationError, match="has a user name in its URL"):
        parse_mirror(f"https://{who}@updates.acme.example/")
    assert parse_mirror("https://updates.acme.example/").host == "updates.acme.example"

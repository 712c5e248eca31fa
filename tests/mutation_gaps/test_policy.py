"""Rules of the way to a mirror that only the mutation check found untested."""

from __future__ import annotations

import pytest

from client_reference.errors import ConfigurationError
from client_reference.transport.policy import Attempt, Trust, parse_mirror, redirected


@pytest.mark.parametrize("who", ["acme", "acme:secret", ":secret", ""])
def test_whoever_is_named_before_the_host_is_refused_with_or_without_a_password(who: str) -> None:
    with pytest.raises(ConfigurationError, match="has a user name in its URL"):
        parse_mirror(f"https://{who}@updates.acme.example/")
    assert parse_mirror("https://updates.acme.example/").host == "updates.acme.example"


def test_a_redirect_within_a_plain_mirror_stays_plain() -> None:
    plain, safe = parse_mirror("http://updates.acme.example/"), parse_mirror("https://b.example/")
    way = Attempt(plain, Trust.PLAIN, plain)
    within = redirected(way, "/metadata/1.root.json", "/other/1.root.json", [plain, safe])
    assert within == (Attempt(plain, Trust.PLAIN, plain), "/other/1.root.json")
    onward = redirected(way, "/x", "https://b.example/x", [plain, safe])
    assert onward == (Attempt(safe, Trust.VERIFIED, plain), "/x")

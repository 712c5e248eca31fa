"""What a new epoch takes over: the artifacts of one product, and of no role that reads like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Targets

from client_reference.trust.updater import bin_prefix
from repo_tools.publishing.inherit import inherited_builds
from tests.publishing.lab import PRODUCT, entry

if TYPE_CHECKING:
    from tests.publishing.lab import Lab


def _stage(lab: Lab, role: str, path: str) -> None:
    signed = Targets(targets={path: entry(path, "1.1", 2)})
    staged = lab.workspace.memory / "staged"
    staged.mkdir(parents=True, exist_ok=True)
    (staged / f"{role}.json").write_bytes(Metadata(signed).to_bytes())


def test_bins_of_another_product_are_not_taken_over(live: Lab) -> None:
    ws = live.workspace.after()
    honest = set(inherited_builds(ws, PRODUCT))
    for product in (PRODUCT, "sensor"):
        _stage(live, f"{bin_prefix(f'{product}-builds')}-0", f"builds/{product}/1.1/x")
    assert set(inherited_builds(ws, PRODUCT)) == honest | {f"builds/{PRODUCT}/1.1/x"}
    assert set(inherited_builds(ws, "sensor")) == {"builds/sensor/1.1/x"}


def test_a_channel_is_no_bin_of_a_product_that_is_called_like_it(live: Lab) -> None:
    ws = live.workspace.after()
    assert inherited_builds(ws, f"{PRODUCT}-stable") == {}
    _stage(live, f"{PRODUCT}-stable", "channels/gateway/stable.json")
    assert inherited_builds(ws, f"{PRODUCT}-stable") == {}
    assert inherited_builds(ws, PRODUCT)

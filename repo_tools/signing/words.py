"""Pure: a fingerprint of what is signed, in words that two people can compare over a telephone.

Ten words of a list of 256: 80 bits. Whoever wants another content with the same words must try
2^80 of them. The list is made for bad lines: no two of its words have the same Soundex code, the
same first three letters, or fewer than three letters that differ; a test holds it to that.
"""

from __future__ import annotations

import hashlib

__all__ = ["COUNT", "WORDS", "fingerprint"]

# Changing, adding or moving a word changes every fingerprint: the list is frozen.
WORDS = tuple(
    """
acorn admiral almond amber anchor angel apple april armada arrow artist asphalt athlete
atlas attic august autumn avenue avocado ballad bamboo banjo barrel basket battery beaver
bedroom blossom bonfire bottle bridge bronze buffalo builder cabbage cactus camera canoe
carpet castle cedar cello cement chapter circus cobweb coconut compass concert copper coral
cotton coyote cricket curtain cushion cyclone daisy darling dentist desert diamond doctor
dolphin dragon drummer dungeon dynamo eagle earth echo eclipse elbow emerald emperor engine
equator evening fabric factory falcon family farmer ferry finger firefly flower forest
fossil freckle friday frozen furnace gadget galaxy garlic gazelle gentle geyser giraffe
glacier golden gorilla granite grocer guitar gymnast hammock harbor hatchet herring hickory
highway hobby holiday iceberg icicle igloo iguana indigo infant insect island ivory jackal
jaguar jasmine jersey jester jigsaw journal jungle jupiter kayak kernel kidney kingdom
kitchen knuckle koala lagoon lasso laundry leather lemon leopard lettuce library lilac
lobster lullaby lunar machine magpie mailbox mammoth marble mayor meadow mercury meteor
mineral mirror mitten monkey morning mosaic napkin narwhal nectar needle neptune nickel
nugget nutmeg oasis oatmeal obelisk ocean olive omelet onion opera orange orbit otter outlaw
oxygen palace paper peanut pebble piano picnic pigeon pillow pirate pocket poodle potato
powder puffin puppet puzzle python quarry quebec quilt rabbit radish river robin rodeo ruby
rudder runway saddle sailor sandal shovel siren sketch soccer sofa spider sponge sunset
tablet teapot temple tennis toffee topaz toucan tulip tunnel turtle tuxedo urchin vacuum
valley velvet violin voyage walnut warden weasel window wizard worker yacht yogurt zebra
zenith zigzag zodiac
""".split()  # noqa: SIM905  256 pairs of quotes would hide the words
)
COUNT = 10

_DOMAIN = b"firmroot ceremony 1\n"


def fingerprint(role: str, payload: bytes) -> str:
    """The words of one content.

    Args:
        role: for which it is signed; of a delegated role the content itself does not say.
        payload: the canonical bytes that signatures cover.
    """
    digest = hashlib.sha256(_DOMAIN + role.encode() + b"\n" + payload).digest()
    return " ".join(WORDS[each] for each in digest[:COUNT])

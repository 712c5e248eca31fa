"""The ceremony: several people sign one thing, each on their own machine with only their own key.

A ceremony is a directory in git, `ceremonies/<role>-<N>/`:

* `payload.json`, what is signed, readable; signatures cover its canonical form (TUF 4.2.1);
* `base.json`, version and digest of the predecessor of *this* role and nothing else, so that new
  builds, refreshes and other ceremonies leave collected signatures intact;
* `<keyid>.sig.json`, one file for each signature, so that they never conflict in git;
* `targets/<path>`, target files that it carries, such as the release manifest.

It exists when `payload.json` does: that file is written last and removed first. Rules:

* a signature counts only after it has verified, each time it is read; one that does not is
  reported with the key that it claims, and ignored;
* a root, of the repository or of the recovery anchor, needs the threshold of its predecessor and
  its own (TUF 5.3.4); any other role needs that of the newest role that delegates to it, signed or
  still waiting;
* at the threshold the role goes to `staged/`, but never before the role that delegates to it;
* signatures that would be lost are named, and only the caller may say that they are;
* what a ceremony holds may be written by a stranger: a key is the one that its id names, a carried
  file is one that the payload signs, and only files of these names are ever removed.

In modules: `reading` what is there, `guards` on what may be signed, the `electorate` that may sign,
`signatures` given and missing, the `course` of a ceremony from its start to its end, and the
`chronicle` of those that ended. This is their front.
"""

from repo_tools.signing.ceremony.chronicle import DIGITS, Ending, keep_record, record_paths
from repo_tools.signing.ceremony.course import (
    DiscardedSignaturesError,
    abandon,
    check_startable,
    finish,
    finish_complete,
    start_ceremony,
    tidy,
)
from repo_tools.signing.ceremony.electorate import Electorate, Quorum
from repo_tools.signing.ceremony.guards import carried, check_ceremony, check_paths
from repo_tools.signing.ceremony.reading import (
    Base,
    Ceremony,
    find_ceremony,
    open_ceremonies,
    predecessor,
)
from repo_tools.signing.ceremony.signatures import (
    CeremonyStatus,
    add_signature,
    assemble,
    check_member,
    electorate,
    members,
    proven,
    signature_path,
    status,
)

__all__ = [
    "DIGITS",
    "Base",
    "Ceremony",
    "CeremonyStatus",
    "DiscardedSignaturesError",
    "Electorate",
    "Ending",
    "Quorum",
    "abandon",
    "add_signature",
    "assemble",
    "carried",
    "check_ceremony",
    "check_member",
    "check_paths",
    "check_startable",
    "electorate",
    "find_ceremony",
    "finish",
    "finish_complete",
    "keep_record",
    "members",
    "open_ceremonies",
    "predecessor",
    "proven",
    "record_paths",
    "signature_path",
    "start_ceremony",
    "status",
    "tidy",
]

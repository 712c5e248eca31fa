"""One target under atheris: python -m tests.fuzz TARGET [options of libFuzzer]

Started by `scripts/fuzz.py`, which reads what libFuzzer prints.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.fuzz import TARGETS, Shape, corpus, runner, words
from tests.fuzz.mutation import Mutator, constants

ROOT = Path(__file__).parent.parent.parent


def main(name: str, options: list[str]) -> None:
    atheris = importlib.import_module("atheris")
    target = TARGETS[name]
    with atheris.instrument_imports(include=["client_reference", *target.traced]):
        run = runner(name)
    # An editable install of another tree would be fuzzed otherwise, and this one believed.
    ours = importlib.import_module("client_reference").__file__
    assert ours
    assert ROOT in Path(ours).parents, f"client_reference is {ours}, expected one in {ROOT}"

    def one(data: bytes) -> None:
        run(data)

    parsers = [each for name, each in sys.modules.items() if name.startswith("client_reference.")]
    files = [path for path in corpus(name) if not path.name.startswith("text-")]
    readable = [path.read_bytes() for path in files]

    def plain(data: bytes, most: int) -> bytes:
        # Looked up late: atheris puts another `Mutate` into its place when fuzzing begins.
        return bytes(atheris.Mutate(data, most))

    mutator = Mutator(target.shape, plain, constants(*parsers), readable)

    def structured(data: bytes, most: int, seed: int) -> bytes:
        return mutator.mutate(data, most, seed)

    if (dictionary := words(name)) is not None:
        options = [f"-dict={dictionary}", *options]
    custom = {} if target.shape is Shape.BYTES else {"custom_mutator": structured}
    atheris.Setup([sys.argv[0], f"-max_len={target.most}", *options], one, **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

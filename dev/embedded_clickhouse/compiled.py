"""chDB's compiled module without the package around it.

The package imports pandas where it can, and starts an engine only to ask for its version. Needs the
standard library alone: the engines of other versions are loaded by it, too.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any


def compiled_module() -> Any:  # noqa: ANN401 (compiled, untyped)
    """Load the module: its `connect` and `query` are the same in all versions."""
    spec = importlib.util.find_spec("chdb")
    if spec is None:
        sys.exit("there is no chdb in this environment")
    package = types.ModuleType("chdb")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["chdb"] = package
    return importlib.import_module("chdb._chdb")

"""Leaves out of `import torch` what only tracing needs, until something asks for it.

For the shapes that `torch.compile` and `torch.export` reckon with, PyTorch has rules and reference versions of its
operations in Python. They take a third of its import and 20 MB, and a forward as it is here uses none of them.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# `import torch` imports them for what they register: it reads nothing of them.
RULES = ("torch._meta_registrations", "torch.distributed._meta_registrations")
# What those import, and is reached as an attribute of torch afterwards: `torch.broadcast_shapes` does so.
REFERENCES = frozenset({"_decomp", "_prims", "_refs"})
# Whatever traces imports this first.
_TRACER = "torch._dynamo"


def import_torch() -> None:
    """Imports torch without those modules. The rules are loaded when torch's tracer is imported, or when something of
    them is read. Does nothing if torch is loaded already."""
    if "torch" in sys.modules:
        return
    sys.meta_path.insert(0, _Deferred())
    torch = vars(importlib.import_module("torch"))
    # Submodules that torch itself imports when they are first read.
    torch["_lazy_modules"].update(REFERENCES)


class _Deferred(MetaPathFinder, Loader):
    """Finds the rules, and runs their code once it is needed."""

    def __init__(self) -> None:
        self._waiting: dict[str, ModuleType] = {}
        # Loading one may ask for the other.
        self._lock = threading.RLock()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _TRACER:
            for name in RULES:
                self._load(name)
        if fullname not in RULES or (spec := PathFinder.find_spec(fullname, path, target)) is None:
            return None
        spec.loader_state, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def ask(name: str) -> object:
            self._load(module.__name__)
            return getattr(module, name)

        self._waiting[module.__name__] = module
        # Called for what the module lacks.
        module.__getattr__ = ask  # type: ignore[method-assign]

    def _load(self, name: str) -> None:
        with self._lock:
            if module := self._waiting.pop(name, None):
                del module.__getattr__
                assert module.__spec__
                loader: Loader = module.__spec__.loader_state
                module.__loader__ = module.__spec__.loader = loader
                loader.exec_module(module)

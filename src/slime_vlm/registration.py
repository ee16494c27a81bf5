"""Register SliME with transformers once both are imported, and not before.

Registering imports torch, which takes seconds. The command line must show its help at once, and reading a recipe needs
no torch. An import hook therefore waits until something imports transformers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _RegistrationHook(MetaPathFinder):
    """Watch the imports of transformers and of this package, and register after one of them.

    Registration imports the model classes. It waits while a module of this package is still being imported, since that
    module may be one of theirs.
    """

    def __init__(self) -> None:
        self.unfinished = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that reports to this hook."""
        if fullname != "transformers" and not fullname.startswith("slime_vlm."):
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _ReportingLoader(spec.loader, self)
        return spec

    def register_if_possible(self) -> None:
        """Register once, when transformers is there and every module of this package is complete."""
        if not self.unfinished and "transformers" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            importlib.import_module("slime_vlm.auto_classes")


class _ReportingLoader(Loader):
    """Execute a module by its own loader, and let the hook register afterwards."""

    def __init__(self, loader: Loader, hook: _RegistrationHook) -> None:
        self.loader = loader
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, which keeps no trace of this loader."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        ours = module.__name__ != "transformers"
        self.hook.unfinished += ours
        try:
            self.loader.exec_module(module)
        finally:
            self.hook.unfinished -= ours
        self.hook.register_if_possible()


def register_when_transformers_is_imported() -> None:
    """Register SliME's classes now if transformers is imported, else as soon as it is."""
    if "transformers" in sys.modules:
        importlib.import_module("slime_vlm.auto_classes")
    else:
        sys.meta_path.insert(0, _RegistrationHook())


def leave_unregistered() -> None:
    """Let this process import transformers without SliME's classes and torch. It needs no model."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _RegistrationHook)]

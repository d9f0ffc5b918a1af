"""The plugin classes, one module each, named after the plugin as a plugin server expects it.

`ai-proxy.py` is no name that `import` takes, so modules are loaded by their path.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PACKAGED = Path(__file__).parent


def load(folder: Path | None = None) -> dict[str, type]:
    """The class `Plugin` of each module in `folder` (None: the packaged ones), by plugin name.

    Raises ImportError when the folder has no plugin or a module no class `Plugin`, and whatever a
    module raises that is imported.
    """
    folder = folder or _PACKAGED
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
    if not files:
        raise ImportError(f"no plugin in {folder}")
    return {file.stem: _load(file) for file in files}


def _load(file: Path) -> type:
    name = f"{__name__}.{file.stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    plugin = getattr(module, "Plugin", None)
    if not isinstance(plugin, type):
        raise ImportError(f"{file} has no class Plugin")
    return plugin

"""What users register: modules named on a command line, and those that installed distributions announce."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from oodjax.command_line import UsageError
from oodjax.syntax import count_as_own

GROUP = "oodjax.detectors"


class PluginError(UsageError):
    """A plugin that cannot be loaded; the message says which, and why."""


def load(modules: Sequence[str] = (), folder: Path = Path(".")) -> None:
    """Imports the modules that register detectors, recipes and presets; one that is imported already stays as it is.

    Args:
      modules: their names, as in `import NAME`; looked for in `folder`, in the current folder and where Python does.
        Those that installed distributions announce under the entry point group `oodjax.detectors` come before them.
      folder: where a study file that names them lies.

    Raises:
      PluginError: a module that is not there, or that raises.
    """
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        _load(entry.value.partition(":")[0].strip(), f"plugin {entry.value} ({_origin(entry)})", (), entry)
    for module in modules:
        _load(module, f"plugin {module!r}", (folder.resolve(), Path.cwd()))


def _load(module: str, who: str, folders: Sequence[Path], entry: EntryPoint | None = None) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        hint = f", not its file: {Path(module).stem}" if module.endswith(".py") else ", for example my_detectors"
        raise PluginError(f"{who}: expected the name of a module{hint}")
    count_as_own(module)
    with searched(folders):
        try:
            import_module(module) if entry is None else entry.load()
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise PluginError(f"{who}: it imports {error.name}, which is not installed") from error
            places = f"; looked for in {', '.join(dict.fromkeys(map(str, folders)))} and among what is installed"
            raise PluginError(f"{who}: there is no module {error.name}{places if folders else ''}") from error
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            raise PluginError(f"{who} raised {type(error).__name__}: {error}") from error


@contextmanager
def searched(folders: Sequence[Path]) -> Iterator[None]:
    """Imports look into these folders first; afterwards last, for what a module imports later."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)
        sys.path += added


def _origin(entry: EntryPoint) -> str:
    home = entry.dist.name if entry.dist is not None else "an installed distribution"
    return f"entry point {entry.name} of {home}"

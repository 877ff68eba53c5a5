"""Optional packages, imported only where they are used."""

from importlib import import_module
from types import ModuleType

from fewspikes.base.errors import FewSpikesError


def require(module: str, purpose: str, extra: str = "vision") -> ModuleType:
    """Import an optional package's module.

    Args:
        module: dotted name, as in an import statement.
        purpose: what needs it; the error starts with these words.
        extra: the extra of fewspikes that installs it.

    Raises:
        FewSpikesError: it is not installed; the error names the extra.

    >>> require("math", "a circle").pi
    3.141592653589793
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise FewSpikesError(f"{purpose} needs {package}; pip install 'fewspikes[{extra}]' ({error})") from None

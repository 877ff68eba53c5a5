"""A model from the user's own Python file: path/to/file.py:function."""

import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from torch import nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.models.names import did_you_mean


def call_user_function(path: Path, function: str) -> nn.Module:
    """Import the file and call its function, without arguments; the module comes back as the function made it.

    While both run, the file's folder is on the import path, as it is for a script. The file runs with the caller's
    rights: it is code, not data.

    Raises:
        FewSpikesError: no such file or function, either fails, or the result is no nn.Module. What the user's code
            raised is its cause.
    """
    if not path.is_file():
        raise FewSpikesError(f"no file {path}; give path/to/file.py:function")
    with _importable(path.resolve().parent):
        module = _import(path)
        build: Callable[[], object] | None = getattr(module, function, None)
        if not callable(build):
            own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise FewSpikesError(f"{path} has no function {said(function)}{did_you_mean(function, own)}")
        try:
            model = build()
        except (Exception, SystemExit) as error:
            raise FewSpikesError(
                f"{path}:{function}() failed: {_line(error)}; call it in Python to debug it"
            ) from error
    if not isinstance(model, nn.Module):
        raise FewSpikesError(
            f"{path}:{function}() returned {type(model).__name__}; it must return the trained nn.Module"
        )
    return model


def _import(path: Path) -> ModuleType:
    # A name of its own, so that a file called torch.py or model.py hides no other module.
    name = f"fewspikes_user_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FewSpikesError(f"{path} is no Python file; give path/to/file.py:function")
    module = module_from_spec(spec)
    sys.modules[name] = module  # stays: pickle and dataclasses look classes up by their module's name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise FewSpikesError(f"{path} cannot be imported: {_line(error)}; run it with Python to debug it") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}), which belongs under if __name__ == '__main__'"
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__

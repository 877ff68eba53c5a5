"""Files of sentences, one a line, and of their labels."""

from pathlib import Path

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, reason_of, shown
from fewspikes.base.wording import counted

_MOST_BYTES = 1 << 28  # of a file of text


def read_sentences(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, without those that hold nothing.

    Raises:
        FewSpikesError: no such file, another encoding, or no sentence in it.
    """
    found = [line for line in _lines(path, "--text FILE with one sentence a line") if line]
    if not found:
        raise FewSpikesError(f"{shown(path)} holds no sentence; write one a line")
    return found


def read_labels(path: str | Path, sentences: int) -> list[int]:
    """A whole number a line, one for each sentence.

    Raises:
        FewSpikesError: no such file, another number of lines, or a line that is no class.
    """
    lines = _lines(path, "--labels FILE with a class number a line")
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != sentences:
        raise FewSpikesError(
            f"{shown(path)} has {counted(len(lines), 'label')} for {counted(sentences, 'sentence')}; give one a line"
        )
    odd = next(
        (i for i, line in enumerate(lines) if not (line.isascii() and line.isdecimal() and len(line) < 10)), None
    )
    if odd is not None:
        raise FewSpikesError(f"{shown(path)}, line {odd + 1}: a label is a class number >= 0; got {said(lines[odd])}")
    return [int(line) for line in lines]


def _lines(path: str | Path, wanted: str) -> list[str]:
    file = as_path(path)
    if not file.is_file():
        raise FewSpikesError(f"no file {shown(path)}; give {wanted}")
    if file.stat().st_size > _MOST_BYTES:
        raise FewSpikesError(f"{shown(path)} is larger than {_MOST_BYTES >> 20} MiB; give a part of it")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FewSpikesError(f"{shown(path)} is no UTF-8 text: {reason_of(error)}; give {wanted}") from None
    return [line.strip() for line in text.split("\n")]

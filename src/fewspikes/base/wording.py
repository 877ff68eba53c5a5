"""Words of messages that depend on a number."""


def counted(count: int, word: str) -> str:
    """So many of something, in words.

    >>> counted(1, "layer"), counted(2000, "image")
    ('1 layer', '2,000 images')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"

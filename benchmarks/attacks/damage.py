"""Damage: to bytes, to fields of JSON data, and the extreme values that are put in their place."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from fewspikes.base.seals import SEAL, digest

Random = np.random.Generator


def pick(random: Random, items: Any) -> Any:
    """One of the items."""
    return items[int(random.integers(len(items)))]


# Bytes.


def flipped(content: bytes, random: Random) -> bytes:
    """One to eight bits turned round."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 9)) if changed else 0):
        changed[int(random.integers(len(changed)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def cut(content: bytes, random: Random) -> bytes:
    """Without its end."""
    return content[: int(random.integers(len(content)))]


def shortened(content: bytes, random: Random) -> bytes:
    """Without a piece within."""
    at = int(random.integers(len(content)))
    return content[:at] + content[at + int(random.integers(1, 65)) :]


def lengthened(content: bytes, random: Random) -> bytes:
    """With random bytes within."""
    at = int(random.integers(len(content) + 1))
    return content[:at] + random.bytes(int(random.integers(1, 65))) + content[at:]


def swapped(content: bytes, random: Random) -> bytes:
    """Two blocks exchanged."""
    a, b, c = sorted(int(at) for at in random.integers(len(content) + 1, size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def emptied(content: bytes, random: Random) -> bytes:
    """A block of zeros, as after a crash of the machine."""
    at, size = int(random.integers(len(content))), int(random.integers(1, 4097))
    return (content[:at] + bytes(size) + content[at + size :])[: len(content)]


def digit(content: bytes, random: Random) -> bytes:
    """One digit changed."""
    places = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flipped(content, random)
    at = pick(random, places)
    return content[:at] + str((content[at] - 48 + int(random.integers(1, 10))) % 10).encode() + content[at + 1 :]


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (flipped, cut, shortened, lengthened, swapped, emptied, digit)


# Fields.

_DEEP = "@deep@"  # stands for what is nested so deep that no program could write it


def extreme(random: Random) -> Any:
    """A value that nobody expects in a file."""
    values: list[Any] = [
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        1 << 31,
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        -(1 << 63),
        10**400,
        float("nan"),
        float("inf"),
        1e308,
        -1e308,
        5e-324,
        -0.0,
        0.5,
        "",
        "1",
        "x" * 5000,
        "a\0b",
        "\ud800",
        "two\nlines",
        "../../etc/passwd",
        [],
        {},
        [0] * 1000,
        {"node": "x"},
        {"float": "nan"},
        {"torch": "float16"},
        {"tuple": [1, 2]},
        _DEEP,
        [[[{}]]],
    ]
    return pick(random, values)


def forged(content: Any, random: Random) -> Any:
    """The same JSON data with one to three places changed: another value, no value, one more, or another order."""
    for _ in range(int(random.integers(1, 4))):
        holder, key = _place(content, random)
        if holder is None:
            return extreme(random)
        way = int(random.integers(8))
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(int(random.integers(len(holder) + 1)), holder[key])
        elif way == 2 and isinstance(holder, list):
            holder.reverse()
        elif way == 3 and isinstance(holder, dict):
            holder[other_name(random)] = holder.pop(key)
        elif way == 4 and type(holder[key]) in (int, float) and abs(holder[key]) < 1 << 60:
            holder[key] = holder[key] * pick(random, (-1, 2, 1 << 20, 0.5)) + pick(random, (0, 1))
        else:
            holder[key] = extreme(random)
    return content


def other_name(random: Random) -> str:
    """A name that nobody gave."""
    value = extreme(random)
    return "more" if isinstance(value, dict | list) else str(value)[:99].encode("utf-8", "replace").decode()


def _place(content: Any, random: Random) -> tuple[Any, Any]:
    """A container somewhere in the data, and a key in it."""
    holder, found = content, (None, None)
    while isinstance(holder, dict | list) and holder:
        key = pick(random, list(holder)) if isinstance(holder, dict) else int(random.integers(len(holder)))
        found = (holder, key)
        if random.random() < 0.2:
            break
        holder = holder[key]
    return found


def written(content: Any, random: Random) -> str:
    """JSON as a careless program writes it: NaN as a word, and now and then a key twice."""
    depth = int(pick(random, (50, 900, 100_000)))
    opening, closing = pick(random, (("[", "]"), ('{"a":', "}")))
    text = json.dumps(content).replace(json.dumps(_DEEP), opening * depth + "1" + closing * depth)
    if random.random() < 0.05 and text.startswith("{"):
        text = text[:-1] + ', "version": 1}' if random.random() < 0.5 else '{"sha256": "0", ' + text[1:]
    return text


def resealed(content: Any, tensors: Any = None) -> Any:
    """The data with a checksum that fits, as an attacker would write them, where they have one at all."""
    if not isinstance(content, dict):
        return content
    inside = {name: value for name, value in content.items() if name != SEAL}
    try:
        return inside | {SEAL: digest(inside, tensors)}
    except (ValueError, RecursionError, TypeError):
        return content

"""What the user chose: what becomes of each kind of thing, everywhere or in some modules."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

# Kinds that no operator stands for: how the network's inputs come, and what lies between two weighted maps.
WITHOUT_ROWS = {"input": ("analog", "spikes"), "linear": ("collapsed", "relay", "neurons")}


class Choices:
    """A choice by kind, and others for modules whose path fits a pattern.

    Args:
        kinds: what each kind may become, the default first.
        chosen: by kind, or by pattern ("layer4.*"); what is chosen for a pattern holds there for each kind that knows
            it, the last pattern that fits first.

    >>> made = Choices({"max": ("digital", "neurons")}, {"max": "neurons", "stem.*": "digital"})
    >>> made.of("max", "layer1.pool"), made.of("max", "stem.pool")
    ('neurons', 'digital')
    """

    def __init__(self, kinds: Mapping[str, tuple[str, ...]], chosen: Mapping[str, str] | None = None) -> None:
        self.kinds, given = kinds, dict(chosen or {})
        self._by_kind = {kind: given.pop(kind, values[0]) for kind, values in kinds.items()}
        self._patterns = tuple(reversed(given.items()))
        self._used: set[str] = set()

    def without_a_place(self, paths: Iterable[str]) -> str | None:
        """The first pattern that none of these modules' paths fits, or None."""
        known = set(paths)
        return next((p for p, _ in reversed(self._patterns) if not any(fnmatchcase(q, p) for q in known)), None)

    def of(self, kind: str, path: str) -> str:
        """What becomes of a kind at a module's path; "" for a kind that there is none of."""
        if kind not in self.kinds:
            return ""
        for pattern, value in self._patterns:
            if value in self.kinds[kind] and fnmatchcase(path, pattern):
                self._used.add(pattern)
                return value
        return self._by_kind[kind]

    def departs(self, kind: str) -> bool:
        """Whether anything but the default is chosen for a kind anywhere."""
        usual, *others = self.kinds[kind]
        return self._by_kind[kind] != usual or any(value in others for _, value in self._patterns)

    @property
    def idle(self) -> dict[str, str]:
        """The patterns, and what is chosen for them, that nobody has asked for: nothing there has such a choice.

        What is to stay digital may be of a kind that has no other choice yet.
        """
        return {p: value for p, value in reversed(self._patterns) if p not in self._used and value != "digital"}

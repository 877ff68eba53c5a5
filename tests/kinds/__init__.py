"""Networks as users write them, of every kind: small, of random weights."""

from kinds import attending, heads, pictures, rearranging, recurrent, sequences, vectors
from kinds.kind import Kind

_ROOMS = (pictures, rearranging, sequences, recurrent, vectors, heads, attending)
KINDS = tuple(kind for room in _ROOMS for kind in room.KINDS)

__all__ = ["KINDS", "Kind"]

"""Networks as users write them, of every kind: small, of random weights."""

from kinds import heads, pictures, rearranging, recurrent, sequences, vectors
from kinds.kind import Kind

KINDS = (*pictures.KINDS, *rearranging.KINDS, *sequences.KINDS, *recurrent.KINDS, *vectors.KINDS, *heads.KINDS)

__all__ = ["KINDS", "Kind"]

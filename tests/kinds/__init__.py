"""Networks as users write them, of every kind: small, of random weights."""

from kinds import attending, heads, pictures, rearranging, sequences, vectors
from kinds.kind import Kind

KINDS = (*pictures.KINDS, *rearranging.KINDS, *sequences.KINDS, *vectors.KINDS, *heads.KINDS, *attending.KINDS)

__all__ = ["KINDS", "Kind"]

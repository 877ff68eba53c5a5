"""Random FS-neurons and gate inputs for property tests."""

from hypothesis import strategies as st

numbers = st.floats(-20, 20, allow_nan=False, width=32)


@st.composite
def arguments(draw):
    """(T, h, d, offset) of any FS-neuron: negative and zero resets, equal thresholds."""
    K = draw(st.integers(1, 24))
    T, h, d = (draw(st.lists(numbers, min_size=K, max_size=K)) for _ in range(3))
    return T, h, d, draw(numbers)


@st.composite
def inputs_for(draw, p):
    """Gate inputs that hit thresholds exactly, and anything else that a float can be."""
    on_threshold = st.sampled_from([float(v) for v in p.T])
    other = st.floats(width=32, allow_nan=True, allow_infinity=True)
    return draw(st.lists(st.one_of(on_threshold, numbers, other), min_size=1, max_size=20))

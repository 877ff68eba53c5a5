"""The FS-neuron for one number in plain Python, written from the paper's equations (1) to (3); imports nothing."""


def fs_neuron(x, T, h, d, offset=0.0):
    """(spikes z[1..K], output y) for the gate input x, in Python's float64."""
    v, y, z = x, offset, []
    for t in range(len(T)):
        fires = v >= T[t]
        z.append(fires)
        if fires:
            y = y + d[t]
            v = v - h[t]
    return z, (x if x != x else y)

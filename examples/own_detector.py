"""A detector of one's own: `python -m oodjax.run digits --plugin own_detector --detectors all,margin`."""

import jax

from oodjax.detectors import Method, register


def score(params, outputs):
    """Gap between the two largest logits: small where the network hesitates."""
    largest, second = jax.lax.top_k(outputs.logits, 2)[0].T
    return largest - second


register(Method("margin", "classification", score, reads=()))

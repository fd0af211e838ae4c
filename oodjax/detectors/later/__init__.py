"""Post-hoc methods published beside or after the study's 21: by name like those, but not in the study's default.

Each is written from its paper; its score function says where it departs from that. Left out, and why:

* rankfeat takes the leading singular vector out of the last two stages' feature maps and runs the network on from
  there: it needs maps before pooling and the layers behind them; its paper has no form on pooled features.
* adascale perturbs the pixels that change the prediction least and reads the features of a second forward pass.
* t2fnorm, like cider, dml+ or generalised ODIN, scores networks that were trained for it.
* nac's results rest on four layers, of which `Outputs` hold the last, and its histograms make scores jump where a float
  rounds over the edge of a bin.
* combood combines a nearest-neighbour with a Mahalanobis distance; no code of its authors was found that would settle
  how.
"""

from oodjax.detectors.later import classification, feature, graph, hybrid  # noqa: F401 - they register

"""Post-hoc methods published beside or after the study's 21: by name like those, but not in the study's default.

Each is written from its paper; its score function says where it departs from that. Left out, since what `Outputs`
holds does not suffice or they are not post-hoc:

* rankfeat takes the leading singular vector out of the last two stages' feature maps and runs the network on from
  there: it needs maps before pooling and the layers behind them; its paper has no form on pooled features.
* adascale perturbs the pixels that change the prediction least and reads the features of a second forward pass.
* t2fnorm, like cider, logitnorm or g-odin, trains a network of its own; scored on another it is MSP.
* dml+ is an ensemble of networks trained for it, and dml's weight is tuned on OOD data.
* combood's combination of its two distances is in no public code, and not determined by what its authors published
  outside of the paper's closed version.
"""

from oodjax.detectors.later import classification, feature, graph, hybrid  # noqa: F401 - they register

"""The words of the field and of the report, each explained in a sentence or two: one source for page and documentation.

`TERMS` is in reading order: a term is explained by those before it. `DETECTORS` has the study's 21 in its order, then
the later ones.
"""

from __future__ import annotations

TERMS: dict[str, str] = {
    "ID": "In-distribution: images like those that the network was trained on, of the classes that it knows.",
    "OOD": (
        "Out-of-distribution: images of none of the classes that the network knows. It assigns each of them to a class "
        "all the same, often with confidence."
    ),
    "near": "OOD images that look like ID images: other classes of the same kind, such as unknown animals.",
    "far": "OOD images of another kind than the ID images: textures, plants, other domains.",
    "extreme": "OOD images that share next to nothing with the ID images: digits, for a network of photographs.",
    "synthetic": "OOD images that a program makes: noise, stripes, single colours, smooth shapes.",
    "detector": "A method that gives each image a score: higher means more in-distribution.",
    "post-hoc": "Applied to a network after its training, which stays as it is: no retraining, no other weights.",
    "score": "What a detector says of an image: a number, higher for images that look more in-distribution.",
    "logits": "The numbers that a network gives each class, before the softmax turns them into probabilities.",
    "features": "The numbers that enter a network's last layer: what it sees in an image, before any class.",
    "head": "A network's last, linear layer: it turns features into logits.",
    "family": (
        "What a detector reads: classification (logits), feature (features), hybrid (both), intermediate (earlier "
        "layers), gradient (gradients of the head's weights)."
    ),
    "training statistics": (
        "What one pass over the training images leaves behind for detectors to be fitted to: means, covariances and "
        "the bank."
    ),
    "bank": "The features of training images that are kept, for detectors that compare images one by one.",
    "grid": "The values of a detector's options that are tried; the best on validation images is taken.",
    "ID validation": "Held-out ID images, in neither training nor test, on which options and thresholds are chosen.",
    "OOD validation": "OOD images on which options are chosen, none of them in the OOD sets of the test.",
    "accuracy": "The share of ID test images that the network classifies correctly.",
    "ECE": (
        "Expected calibration error: the mean gap between a network's confidence and its accuracy, over 15 bins of "
        "confidence. 0 is best."
    ),
    "AUROC": (
        "Area under the ROC curve: the chance that an ID image scores above an OOD image, ties counting half. 100 % is "
        "perfect, 50 % is guessing; below 50 % OOD images score above ID images."
    ),
    "FPR95": (
        "False-positive rate at 95 % true-positive rate, with OOD as the positive class: the share of ID images that "
        "are flagged when the threshold flags 95 % of the OOD images. 0 is best."
    ),
    "FPR95 (ID)": "The same with ID as the positive class: the share of OOD images accepted with 95 % of ID.",
    "AUPR": (
        "Area under the precision-recall curve; AUPR-in takes ID as the positive class, AUPR-out takes OOD. Unlike "
        "AUROC it depends on how many images there are of each."
    ),
    "ROC": "The curve of true-positive rate against false-positive rate, over all thresholds.",
    "TPR": "True-positive rate. Of a threshold from `calibrate(..., tpr=0.95)`: the share of ID images it accepts.",
    "threshold": "The score from which on an image is taken as in-distribution.",
    "calibration": (
        "Of a detector: choosing its threshold on held-out ID images, so that a given share of ID images is accepted. "
        "Of a network: how well its confidence matches its accuracy, see ECE."
    ),
    "p-value": (
        "Of an image: how rare a score as low as its own is among held-out ID images, by conformal prediction; an ID "
        "image falls at or below any level a with a chance of at most a. Of a test: the chance of a difference this "
        "large where there is none."
    ),
    "false alarm": "An ID image that is taken as OOD. A threshold for a TPR of 95 % allows for 5 %.",
    "confidence": "The largest of the probabilities that a network gives the classes.",
    "recipe": "A way of training a network: its loss, augmentations and schedule.",
    "baseline": "The recipe that the others are compared with: cross-entropy alone.",
    "adversarial": "Trained on images that were changed, within a bound, to mislead the network.",
    "augmentation": "Trained on images that were changed at random: mixed, cut, recoloured, covered by noise.",
    "ssl": "Self-supervised learning: features learned without or beside the labels, by contrast, then a head on top.",
    "improved": "Recipes for better accuracy: label smoothing, averaged weights, longer schedules.",
    "freezing": "Trained with a part of the weights, such as the filters, left at random.",
    "seed": "The number that decides the random choices of a training; other seeds show how much is chance.",
    "interval": "Where the true value lies: made in this way, 95 % of all 95 % intervals contain it.",
    "mean rank": "The place of a detector among all, 1 for the best, averaged over models.",
    "Spearman's ρ": "Rank correlation: 1 where one value always rises with the other, -1 where it falls, 0 for none.",
    "ANOVA": (
        "Analysis of variance: how much of the spread of AUROC goes with the model, the detector, the OOD category and "
        "their combinations."
    ),
    "Friedman test": "Whether detectors differ in their ranks over the models by more than chance.",
    "critical difference": "How far apart two mean ranks must be for the detectors to differ by more than chance.",
}

DETECTORS: dict[str, str] = {
    "msp": "Maximum softmax probability: the network's confidence.",
    "mls": "Maximum logit score: the largest logit, without the softmax that makes logits relative to each other.",
    "ebo": "Energy: a soft maximum of the logits.",
    "odin": "Confidence at a high temperature, after a small step of the image's pixels that raises its confidence.",
    "tempscale": "Confidence at the temperature that fits held-out ID images best.",
    "klm": "KL matching: distance of the probabilities from the nearest of the classes' mean probabilities.",
    "gen": "Generalised entropy of the largest probabilities.",
    "mds": "Mahalanobis distance of the features from the nearest class, all classes with one covariance.",
    "rmds": "Relative Mahalanobis distance: that of the nearest class, less that of all training features together.",
    "knn": "Distance of the features from the k-th nearest training image, all at unit length.",
    "she": "Simplified Hopfield energy: product of the features with the mean of the predicted class.",
    "vim": "Virtual-logit matching: energy, less the part of the features outside the main directions of training.",
    "ash": "Activation shaping: energy with only the largest features kept, all at one value.",
    "react": "Rectified activations: energy with features cut off above a percentile of training.",
    "dice": "Directed sparsification: energy with only the weights of the head that contribute most.",
    "scale": "Energy with logits scaled up by how much the largest features hold of their sum.",
    "nnguide": "Nearest-neighbour guidance: energy times the similarity to the nearest training images.",
    "fdbd": "Distance of the features from the decision boundaries, relative to their distance from the training mean.",
    "gram": "Gram matrices: how far correlations within layers leave the range that training images of the class have.",
    "ats": "Adaptive temperature scaling: energy at a temperature that earlier layers set by how unusual they are.",
    "gradnorm": "Size of the gradient of the head's weights towards equal probabilities: larger for ID images.",
    "entropy": "Entropy of the probabilities that a network gives the classes: low where it is certain.",
    "openmax": "How little of the largest logits goes to an unknown class where they are far from the mean of theirs.",
    "residual": "The part of the features outside the main directions of training, without the energy of ViM.",
    "gmm": "Density of the features where each class is a Gaussian, all with one covariance.",
    "mdspp": "Mahalanobis++: Mahalanobis distance of features at unit length from the nearest class.",
    "relation": "Mean likeness of features and probabilities to those of training images, both multiplied.",
    "neco": "Neural collapse: the share of the standardised features that lies along the main directions of training.",
    "nci": "Neural collapse: how far the centred features point to the predicted class's weights, and their size.",
    "vra": "Variational rectified activation: energy with low features set to 0 and high ones cut off.",
    "lts": "Logit scaling: energy with logits scaled by the squared share of the largest features in their sum.",
    "cadref": "Distance of the features from the mean of the predicted class, in parts that raise and lower its logit.",
}


def explain(detector: str, doc: str | None = None) -> str:
    """What a detector does; of one of your own, the first line of its docstring `doc`."""
    return DETECTORS.get(detector) or (doc or "").strip().split("\n")[0]

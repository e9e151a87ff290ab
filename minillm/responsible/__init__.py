"""Using a model responsibly: what it has memorized, whom it prefers, whether a text is its own, learning in private.

Read in any order: canaries.py (planted secrets, and how far they are exposed), bias.py (pairs that differ in one thing,
WEAT, augmentation that takes a bias away), watermark.py (a mark in generated text, and its detector), dp.py (DP-SGD and
what it promises). What a model thinks of a text they ask of interpret/likelihood.py. Personal information is found and
scrubbed where text is cleaned: data/pii.py. chapters/19_privacy_bias_misuse.ipynb tries all of it on models whose
secrets and biases are known.
"""

from ..interpret import log_likelihoods
from .bias import Weat, augment, counterfactual, likelihood_gaps, pair_gaps, weat
from .canaries import canaries, exposure, extrapolated_exposure, planted
from .dp import PrivateOptimizer, epsilon, noise_for, poisson_lots
from .watermark import Detection, Watermark

__all__ = [
    "Detection", "PrivateOptimizer", "Watermark", "Weat", "augment", "canaries", "counterfactual", "epsilon",
    "exposure", "extrapolated_exposure", "likelihood_gaps", "log_likelihoods", "noise_for", "pair_gaps", "planted",
    "poisson_lots", "weat",
]  # fmt: skip

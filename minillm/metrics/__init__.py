"""Metrics: how good answers are, by hand in NumPy, equal to scikit-learn, sacreBLEU and rouge-score.

classification.py (labels, numbers, probabilities), translation.py (BLEU, chrF), generation.py (ROUGE, exact match,
distinct-n, pass@k, perplexity), intervals.py (the bootstrap: how far a score may be off).
"""

from .classification import (
    accuracy,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    mae,
    matthews,
    mse,
    precision_recall_f1,
    r2,
    roc_auc,
    roc_auc_macro,
)
from .generation import bits_per_byte, distinct_n, exact_match, normalized, pass_at_k, perplexity, rouge
from .intervals import bootstrap, paired_bootstrap
from .translation import bleu, bleu_counts, bleu_from_counts, chrf, chrf_counts, chrf_from_counts, sentence_bleu

__all__ = [
    "accuracy", "bits_per_byte", "bleu", "bleu_counts", "bleu_from_counts", "bootstrap", "calibration_bins",
    "calibration_error", "chrf", "chrf_counts", "chrf_from_counts", "confusion_matrix", "distinct_n", "exact_match",
    "mae", "matthews", "mse", "normalized", "paired_bootstrap", "pass_at_k", "perplexity", "precision_recall_f1", "r2",
    "roc_auc", "roc_auc_macro", "rouge", "sentence_bleu",
]  # fmt: skip

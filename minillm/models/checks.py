"""What every config checks about itself, by a ValueError that names the config, the setting, its value and the rule."""

from __future__ import annotations

from typing import Any

# What all of a model shares, and what a part may have instead (None: what all share).
DROPOUTS = ("dropout", "attention_dropout", "embedding_dropout", "classifier_dropout")


def check_whole(config: Any, *names: str, optional: tuple[str, ...] = ()) -> None:
    """These settings must be whole numbers, at least 1; those in `optional` may be None instead."""
    for name in (*names, *optional):
        value = getattr(config, name)
        if value is None and name in optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{type(config).__name__}: {name} = {value!r} must be a whole number, at least 1.")


def check_positive(config: Any, *names: str) -> None:
    """These settings must be numbers above 0."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{type(config).__name__}: {name} = {value!r} must be above 0.")


def check_dropout(config: Any) -> None:
    """`dropout` must be a share; those that a part may have of its own, too, or None."""
    for name in DROPOUTS:
        value = getattr(config, name, None)
        if not isinstance(value, (int, float, type(None))) or not 0 <= (value or 0) < 1 or config.dropout is None:
            raise ValueError(f"{type(config).__name__}: {name} = {value!r} must be at least 0 and below 1.")


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """The setting must be one of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{type(config).__name__}: {name} = {value!r} must be one of {', '.join(choices)}.")


def check_labels(config: Any) -> None:
    """`labels` must name each class, all differently, or be empty; a list, as JSON has it, becomes a tuple."""
    labels, name = config.labels, type(config).__name__
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{name}: labels = {labels!r:.80} must be a list of names.")
    if labels and len(labels) != config.n_labels:
        raise ValueError(f"{name}: labels = {labels!r:.80} are {len(labels)} names, and n_labels = {config.n_labels}.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{name}: labels = {labels!r:.80} must differ from each other.")
    object.__setattr__(config, "labels", tuple(labels))  # a frozen dataclass lets nothing else change it


def check_pad_id(config: Any, vocab_size: int) -> None:
    """`pad_id` must be an id, or None."""
    if config.pad_id is not None and not 0 <= config.pad_id < vocab_size:
        name = type(config).__name__
        raise ValueError(f"{name}: pad_id = {config.pad_id} is outside the vocabulary of {vocab_size}.")


def check_window(config: Any) -> None:
    """`window` must be a whole number, and `full_layers` numbers of layers that are without it; a list, as JSON has it,
    becomes a tuple."""
    window, layers, name = config.window, config.full_layers, type(config).__name__
    if not isinstance(window, int) or isinstance(window, bool) or window < 0:
        raise ValueError(f"{name}: window = {window!r} must be a whole number of keys, or 0 for all.")
    good = isinstance(layers, (list, tuple)) and all(type(layer) is int for layer in layers)
    if not good or sorted(set(layers)) != list(layers) or not all(0 <= layer < config.n_layers for layer in layers):
        raise ValueError(f"{name}: full_layers = {layers!r:.80} must be numbers of layers below {config.n_layers}.")
    if layers and not window:
        raise ValueError(f"{name}: full_layers = {layers!r:.80} without a window: all layers see everything.")
    object.__setattr__(config, "full_layers", tuple(layers))


def check_heads(config: Any) -> None:
    """The features must divide into equal heads."""
    if config.d_model % config.n_heads:
        raise ValueError(
            f"{type(config).__name__}: d_model = {config.d_model} must be divisible by n_heads = {config.n_heads}: "
            "each head gets an equal share of the features."
        )


def check_ids(model: Any, ids: Any, name: str = "ids", past: int = 0) -> int:
    """The length T of ids (B, T), which must be at least 1 and, after `past` earlier ones, fit into the context."""
    if len(ids.shape) != 2 or ids.shape[1] == 0:
        raise ValueError(f"{type(model).__name__}: {name} {tuple(ids.shape)} must be (B, T), T at least 1.")
    T = ids.shape[1]
    if past + T > model.config.context:
        raise ValueError(
            f"{type(model).__name__}: {past + T} tokens in {name} are more than the context of {model.config.context}. "
            "Shorten the input, or build the model with a larger context."
        )
    return T

"""What is computed again on PyTorch: the same gradients to the last bit, and no product or attention twice where these
are kept. (Compiled: test_torch_engine.py. Our own attention: kernels/test_torch_integration.py.)"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import CheckpointPolicy  # noqa: E402

from minillm.engines.torch_blocks import ATTENTION, keep_or_recompute  # noqa: E402
from minillm.engines.torch_engine import TorchEngine  # noqa: E402
from minillm.models import (  # noqa: E402
    BertConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    model_from_config,
)
from minillm.settings import EngineConfig, TrainConfig  # noqa: E402

SHAPE = {"vocab_size": 40, "context": 12, "n_layers": 1, "d_model": 16}
HEADS = {**SHAPE, "n_heads": 2}
FAMILIES = {
    "gpt": GPTConfig(**{**HEADS, "n_layers": 2}, dropout=0.2),
    "gpt without dropout": GPTConfig(**HEADS),
    "gpt, one dropout": GPTConfig(**HEADS, dropout=0.2, attention_dropout=0.0),
    "gpt, the formula": GPTConfig(**HEADS, attention="reference"),
    "llama": LlamaConfig(**HEADS, d_ff=24, n_kv_heads=1, qk_norm=True),
    "moe": MoeConfig(**HEADS, d_ff=24, n_experts=3),
    "bert": BertConfig(**HEADS, d_ff=24),
    "encoder-decoder": EncoderDecoderConfig(**HEADS, d_ff=24),
    "lstm": LSTMConfig(**SHAPE, dropout=0.2),
}
EXPENSIVE = ("mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu")


class Counting(TorchDispatchMode):
    """How often each operation is computed."""

    def __init__(self):
        super().__init__()
        self.counts = dict.fromkeys(EXPENSIVE, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "_opname", "")
        if name in self.counts:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def gradients(config, how):
    """Gradients of a step, by name, and how often each operation was computed."""
    settings = EngineConfig(name="torch", device="cpu", compile="off", recompute=how)
    model = model_from_config(config, np.random.default_rng(0)).to(np.float64)
    engine = TorchEngine(model, TrainConfig(), settings)
    ids, targets = np.random.default_rng(1).integers(0, 40, (2, 4, 12))
    with Counting() as counting:
        engine.forward_backward([(ids, ids, targets) if isinstance(config, EncoderDecoderConfig) else (ids, targets)])
    return {name: p.grad for name, p in engine.parameters.items()}, counting.counts


@pytest.mark.parametrize("family", FAMILIES)
def test_models_learn_the_same_to_the_last_bit(family):
    """And the second pass of "selective" computes no product again, and attention only where it draws dropout."""
    expected, plain = gradients(FAMILIES[family], "none")
    counts = {}
    for how in ("layers", "selective"):
        found, counts[how] = gradients(FAMILIES[family], how)
        assert list(found) == list(expected)
        for name, grad in found.items():
            assert torch.equal(grad, expected[name]), name
    products = {how: count["mm"] + count["addmm"] for how, count in {**counts, "none": plain}.items()}
    assert products["layers"] > products["none"]
    assert products["selective"] == products["layers" if family == "lstm" else "none"]
    fused = EXPENSIVE[-1]
    assert counts["selective"][fused] == plain[fused]
    if plain[fused]:
        assert counts["layers"][fused] == 2 * plain[fused]
    if family == "gpt, the formula":  # its scores are as many as T for each query: they are not kept
        assert counts["selective"]["bmm"] > plain["bmm"] > 0


def test_attention_is_kept_unless_it_draws():
    q = torch.zeros(1, 1, 2, 8)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention.default
    keep, again = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
    assert keep_or_recompute(None, flash, q, q, q) == keep
    assert keep_or_recompute(None, flash, q, q, q, 0.1, True) == again
    assert keep_or_recompute(None, flash, q, q, q, dropout_p=0.1) == again
    assert keep_or_recompute(None, efficient, q, q, q, None, True, 0.0, True) == keep
    assert keep_or_recompute(None, efficient, q, q, q, None, True, 0.1, True) == again
    assert keep_or_recompute(None, torch.ops.aten.gelu.default, q) == again
    assert keep_or_recompute(None, torch.ops.aten.addmm.default, q, q, q) == keep
    for name in ATTENTION[:-1]:  # those that this PyTorch has are named as it names them
        assert hasattr(torch.ops.aten, name.removeprefix("aten::")), name

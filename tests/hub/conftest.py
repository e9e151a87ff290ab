"""For tests that compare with transformers in float64."""

import pytest


@pytest.fixture
def exact(monkeypatch):
    """transformers computes norms and rotary angles in float32 whatever the dtype, by these names: make them
    float64."""
    torch = pytest.importorskip("torch")
    import safetensors.torch  # noqa: F401  (imported before float32 changes its meaning)
    from transformers.modeling_utils import PreTrainedModel

    # Its experts' products in one kernel know no float64: it is to take the way without.
    monkeypatch.setattr(PreTrainedModel, "_grouped_mm_can_dispatch", unable, raising=False)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def unable(model):
    raise ImportError("no float64")

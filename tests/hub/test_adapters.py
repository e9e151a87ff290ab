"""Adapters in PEFT's format: what is written here means the same beside transformers' model, and PEFT's are read here;
where PEFT is installed, by PEFT itself."""

import json
from functools import partial

import numpy as np
import pytest
from hf_models import FAMILIES, IDS, build, reload, their_logits, torch

from minillm.finetune.lora import LoraConfig, add_lora, adapters, merge, remove_lora, unmerge
from minillm.hub import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from minillm.hub.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter, save_adapter
from minillm.hub.architecture import ConfigurationError
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.convert import convert
from minillm.hub.places import NotFound
from minillm.hub.weights import WeightsError, read_header
from minillm.models import EncoderDecoder, EncoderDecoderConfig
from minillm.training.checkpoint import save_checkpoint
from minillm.models import config_to_dict

ARCHITECTURES = ["gpt2", "llama", "qwen2", "qwen3", "bert"]
CONFIG = LoraConfig(3, alpha=5.0, rslora=True, targets="all-linear")


def classifier_class(family):
    return FAMILIES[family][1].replace("LMHeadModel", "ForSequenceClassification").replace(
        "ForCausalLM", "ForSequenceClassification").replace("ForMaskedLM", "ForSequenceClassification")  # fmt: skip


def saved_base(family, folder, head):
    """(class of transformers, the model that it saved to `folder`)."""
    cls = classifier_class(family) if head == "classification" else FAMILIES[family][1]
    settings = {"num_labels": 3, "pad_token_id": 0} if head == "classification" else {}
    theirs = build(family, cls=cls, **settings).double()
    theirs.save_pretrained(folder)
    return cls, theirs


def open_base(family, folder, head):
    head = "mlm" if family == "bert" and head == "causal" else head
    return open_checkpoint(folder, head).model(), head


def shake(model, seed=1):
    """Every adapter's B, which begins as 0, and a head drawn anew: as if they had learned."""
    rng = np.random.default_rng(seed)
    for layer in adapters(model).values():
        layer.lora_B.data[...] = rng.normal(0, 0.3, layer.lora_B.shape)
    for name in ("score", "classifier"):
        if hasattr(model, name) and getattr(model, name) is not None:
            weight = getattr(model, name).weight
            weight.data[...] = rng.normal(0, 0.3, weight.shape)


def as_peft_loads(theirs, folder):
    """What PEFT does with an adapter, by hand: s·BA onto the matrix of each layer that is named, whole modules
    exchanged."""
    values = json.loads((folder / ADAPTER_CONFIG).read_text())
    scale = values["lora_alpha"] / (values["r"] ** 0.5 if values["use_rslora"] else values["r"])
    tensors = {name.removeprefix("base_model.model."): torch.tensor(stored.read())
               for name, stored in read_header(folder / ADAPTER_WEIGHTS).items()}  # fmt: skip
    with torch.no_grad():
        for name, tensor in tensors.items():
            layer, _, kind = name.partition(".lora_")
            if kind == "A.weight":
                change = tensors[f"{layer}.lora_B.weight"] @ tensor * scale
                weight = theirs.get_submodule(layer).weight
                weight += change.T if values["fan_in_fan_out"] else change
            elif not kind:
                theirs.get_parameter(name).copy_(tensor)
    return theirs


@pytest.mark.parametrize("head", ["causal", "classification"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_adapter_means_the_same_beside_transformers_model(exact, family, head, tmp_path):
    cls, theirs = saved_base(family, tmp_path / "base", head)
    model, head = open_base(family, tmp_path / "base", head)
    add_lora(model, CONFIG, np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    expected = model(IDS).data
    assert np.abs(their_logits(as_peft_loads(theirs, tmp_path / "adapter")) - expected).max() < 1e-9
    values = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    assert values["fan_in_fan_out"] == (family == "gpt2") and values["base_model_name_or_path"] == "../base"
    assert values["modules_to_save"] == ({"bert": ["classifier"]}.get(family, ["score"]) if "class" in head else None)
    assert values["task_type"] == {"causal": "CAUSAL_LM", "classification": "SEQ_CLS", "mlm": None}[head]

    for engine in ("numpy", "torch"):
        opened = open_checkpoint(tmp_path / "adapter").model(engine=engine)
        logits = opened(IDS).data if engine == "numpy" else opened(torch.tensor(IDS)).detach().numpy()
        assert np.abs(logits - expected).max() < 1e-9
        assert set(adapters(opened)) == set(adapters(model))
    convert(tmp_path / "adapter", tmp_path / "merged")
    assert np.abs(their_logits(reload(cls, tmp_path / "merged")) - expected).max() < 1e-9


@pytest.mark.parametrize("head", ["causal", "classification"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_peft_reads_ours_and_we_read_pefts(exact, family, head, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed: the by-hand form of this test stands above")
    cls, theirs = saved_base(family, tmp_path / "base", head)
    model, head = open_base(family, tmp_path / "base", head)
    add_lora(model, CONFIG, np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "ours", tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours", autocast_adapter_dtype=False).eval()
    assert np.abs(their_logits(loaded) - model(IDS).data).max() < 1e-9

    tasks = {"causal": "CAUSAL_LM", "classification": "SEQ_CLS", "mlm": None}
    settings = {"r": 4, "lora_alpha": 6, "task_type": tasks[head], "target_modules": "all-linear"}
    base = reload(cls, tmp_path / "base")
    fresh = peft.get_peft_model(base, peft.LoraConfig(**settings), autocast_adapter_dtype=False).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.3)
    fresh.save_pretrained(tmp_path / "theirs")
    for engine in ("numpy", "torch"):
        opened = open_checkpoint(tmp_path / "theirs").model(engine=engine)
        logits = opened(IDS).data if engine == "numpy" else opened(torch.tensor(IDS)).detach().numpy()
        assert np.abs(logits - their_logits(fresh)).max() < 1e-9


def test_ten_steps_are_pefts(exact, tmp_path):
    peft = pytest.importorskip("peft")
    _, theirs = saved_base("gpt2", tmp_path / "base", "causal")
    model, _ = open_base("gpt2", tmp_path / "base", "causal")
    add_lora(model, LoraConfig(4, alpha=8), np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "ours", tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(
        theirs, tmp_path / "ours", is_trainable=True, autocast_adapter_dtype=False
    ).eval()
    from minillm.finetune.freeze import trainable_parameters
    from minillm.optim import AdamW

    names = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    ours, torchs = AdamW(list(trainable_parameters(model).values()), 0.01), torch.optim.AdamW(names.values(), 0.01)
    inputs, targets = IDS[:, :-1], IDS[:, 1:]
    for _ in range(10):
        model.zero_grad(), torchs.zero_grad()
        loss = model(inputs, targets)
        loss.backward()
        logits = theirs(torch.tensor(inputs)).logits
        their_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
        their_loss.backward()
        assert abs(loss.item() - their_loss.item()) < 1e-10
        grads = sorted(float((p.grad**2).sum()) for p in trainable_parameters(model).values())
        assert np.allclose(grads, sorted(float((p.grad**2).sum()) for p in names.values()), rtol=1e-9)
        ours.step(), torchs.step()
    assert np.abs(their_logits(theirs) - model(IDS).data).max() < 1e-9


# --- our own files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(tmp_path):
    """(model, the folder with its adapter): a Llama."""
    saved_base("llama", tmp_path / "base", "causal")
    model = open_checkpoint(tmp_path / "base").model(dtype="float32")
    add_lora(model, LoraConfig(2, targets=("attn.q_proj", "blocks.1.mlp.*")), np.random.default_rng(0))
    shake(model)
    return model, save_adapter(model, tmp_path / "adapter", tmp_path / "base")

"""Adapters in PEFT's format: what is written here means the same beside transformers' model, and PEFT's are read here;
where PEFT is installed, by PEFT itself."""

import json

import numpy as np
import pytest
from hf_models import FAMILIES, IDS, build, reload, their_logits, torch

from minillm.finetune.freeze import trainable_parameters
from minillm.finetune.lora import LoraConfig, adapters, add_lora, merge, remove_lora, unmerge
from minillm.hub import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from minillm.hub.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, save_adapter
from minillm.hub.architecture import ConfigurationError
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.configs import architecture_of
from minillm.hub.convert import convert
from minillm.hub.names import hf_name
from minillm.hub.places import NotFound
from minillm.hub.weights import WeightsError, read_header
from minillm.models import EncoderDecoder, EncoderDecoderConfig, config_to_dict
from minillm.optim import AdamW
from minillm.training.checkpoint import save_checkpoint

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
    settings["fan_in_fan_out"] = family == "gpt2"
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


class BesideTheirs(torch.nn.Module):
    """LoRA on a layer of transformers, written here after the paper's formula 3, as PEFT computes it."""

    def __init__(self, layer, a, b, scale):
        super().__init__()
        self.layer, self.scale = layer, scale
        self.lora_A, self.lora_B = torch.nn.Parameter(torch.tensor(a)), torch.nn.Parameter(torch.tensor(b))

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.lora_A.T @ self.lora_B.T)


def by_hand(theirs, folder, values):
    """A transformers model with an adapter of the folder beside its layers, ready to train."""
    theirs.requires_grad_(False)
    tensors = {name: stored.read() for name, stored in read_header(folder / ADAPTER_WEIGHTS).items()}
    for name in [name for name in tensors if "lora_A" in name]:
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        pair = [tensors[name.replace("lora_A", half)] for half in ("lora_A", "lora_B")]
        beside = BesideTheirs(theirs.get_submodule(layer), *pair, values["lora_alpha"] / values["r"])
        theirs.set_submodule(layer, beside)
    return theirs


def by_peft(theirs, folder, values):
    peft = pytest.importorskip("peft", reason="PEFT is not installed: the by-hand form of this test stands beside")
    return peft.PeftModel.from_pretrained(theirs, folder, is_trainable=True, autocast_adapter_dtype=False)


@pytest.mark.parametrize("load", [by_hand, by_peft])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_and_ten_steps_are_theirs(exact, family, load, tmp_path):
    _, theirs = saved_base(family, tmp_path / "base", "causal")
    model, _ = open_base(family, tmp_path / "base", "causal")
    add_lora(model, LoraConfig(4, alpha=8, targets="all-linear"), np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "ours", tmp_path / "base")
    values = json.loads((tmp_path / "ours" / ADAPTER_CONFIG).read_text())
    theirs = load(theirs, tmp_path / "ours", values).eval()
    learns = trainable_parameters(model)
    names = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(names) == len(learns)
    ours = AdamW(learns.values(), 1e-3, weight_decay=0.1)
    torchs = torch.optim.AdamW(names.values(), 1e-3, weight_decay=0.1)
    inputs, targets = IDS[:, :-1], IDS[:, 1:]
    for _ in range(10):
        model.zero_grad()
        torchs.zero_grad()
        loss = model(inputs, targets)
        loss.backward()
        logits = theirs(torch.tensor(inputs)).logits
        their_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
        their_loss.backward()
        assert abs(loss.item() - their_loss.item()) < 1e-10
        for name, p in learns.items():
            layer, _, half = hf_name(name, architecture_of(model.config)).rpartition(".")
            (grad,) = [q.grad.numpy() for theirs_, q in names.items() if f"{layer}.{half}" in theirs_]
            assert np.abs(p.grad - grad).max() < 1e-10, name
        ours.step()
        torchs.step()
    assert np.abs(their_logits(theirs) - model(IDS).data).max() < 1e-8


# --- our own files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(tmp_path):
    """(model, the folder with its adapter): a Llama."""
    saved_base("llama", tmp_path / "base", "causal")
    model = open_checkpoint(tmp_path / "base").model()
    add_lora(model, LoraConfig(2, targets=("attn.q_proj", "blocks.1.mlp.*")), np.random.default_rng(0))
    shake(model)
    return model, save_adapter(model, tmp_path / "adapter", tmp_path / "base")


def rewritten(folder, **changes):
    """The adapter's folder with other entries in adapter_config.json; None takes one out."""
    path = folder / ADAPTER_CONFIG
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return folder


def test_what_is_written(adapted):
    model, folder = adapted
    values = json.loads((folder / ADAPTER_CONFIG).read_text())
    mlp = [f"1.mlp.{name}_proj" for name in ("down", "gate", "up")]
    assert values["target_modules"] == ["0.self_attn.q_proj", *mlp, "1.self_attn.q_proj"]
    assert (values["r"], values["lora_alpha"], values["use_rslora"], values["bias"]) == (2, 16.0, False, "none")
    shapes = {name: stored.shape for name, stored in read_header(folder / ADAPTER_WEIGHTS).items()}
    assert shapes["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"] == (2, 12) and len(shapes) == 10
    assert shapes["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"] == (20, 2)
    save_adapter(model, folder, folder.parent / "base")  # again: the old one gives way
    assert (open_checkpoint(folder).model()(IDS).data == model(IDS).data).all()


def test_targets_get_their_shortest_names(tmp_path):
    saved_base("gpt2", tmp_path / "base", "causal")
    for targets, expected in {("qkv",): ["c_attn"], ("attn.proj",): ["attn.c_proj"],
                              "all-linear": ["c_attn", "c_fc", "c_proj"]}.items():  # fmt: skip
        model = open_checkpoint(tmp_path / "base").model()
        add_lora(model, LoraConfig(2, targets=targets), np.random.default_rng(0))
        save_adapter(model, tmp_path / "adapter", tmp_path / "base")
        assert json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())["target_modules"] == expected


def test_the_auto_classes_read_adapters(tmp_path):
    saved_base("qwen2", tmp_path / "base", "causal")
    model = open_checkpoint(tmp_path / "base").model()
    add_lora(model, CONFIG, np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    for engine in ("numpy", "torch"):
        opened = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", engine=engine, dtype="float32")
        ids = IDS if engine == "numpy" else torch.tensor(IDS)
        assert np.abs(np.asarray(opened(ids).logits.data) - model.to(np.float32)(IDS).data).max() < 1e-4
        assert opened.generate(IDS[:, :4].tolist(), max_new_tokens=3)[0][:4].tolist() == IDS[0, :4].tolist()
    with pytest.raises(ValueError, match="this model has LoRA adapters"):
        opened.save_pretrained(tmp_path / "whole")
    features = AutoModel.from_pretrained(tmp_path / "adapter", dtype="float32")
    assert features(IDS).last_hidden_state.shape == (2, 11, 12)
    assert AutoConfig.from_pretrained(tmp_path / "adapter").model_type == "qwen2"


def test_a_classifiers_labels_come_along_although_its_base_model_has_none(tmp_path):
    saved_base("gpt2", tmp_path / "base", "causal")
    names = {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    with pytest.warns(UserWarning, match=r"no weights for score\.weight"):
        ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", **names, pad_token_id=0)
    add_lora(ours.model, LoraConfig(2), np.random.default_rng(0))
    shake(ours.model)
    save_adapter(ours.model, tmp_path / "adapter", tmp_path / "base", original=ours.config.values)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")  # no warning: it has a head
    assert opened.config.id2label == {0: "bad", 1: "fair", 2: "good"} and opened.config.pad_token_id == 0
    assert AutoConfig.from_pretrained(tmp_path / "adapter").label2id == names["label2id"]
    assert np.array_equal(opened(IDS).logits, ours(IDS).logits)
    (tmp_path / "adapter" / "config.json").unlink()  # as PEFT leaves a folder: the head alone says how many labels
    assert open_checkpoint(tmp_path / "adapter").config.n_labels == 3


def test_what_neither_file_has_is_refused(tmp_path):
    """A BERT pretrained with its MLM head has no pooler: a new one must learn, and be saved, or nobody has it."""
    saved_base("bert", tmp_path / "base", "causal")
    for also in (None, ("classifier", "pooler")):
        with pytest.warns(UserWarning, match="not used"), pytest.warns(UserWarning, match="no weights for pooler"):
            ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
        add_lora(ours.model, LoraConfig(2, train_also=also), np.random.default_rng(0))
        save_adapter(ours.model, tmp_path / "adapter", tmp_path / "base")
        if also is None:
            with pytest.raises(WeightsError, match=r"has weights for pooler\.weight, pooler\.bias\. Drawn at random"):
                open_checkpoint(tmp_path / "adapter")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    assert np.array_equal(opened(IDS).logits, ours(IDS).logits)


def test_a_model_that_transformers_has_not(tmp_path):
    """The encoder-decoder, in our own names; its base a checkpoint of ours, with a tokenizer that the adapter lacks."""
    sizes = {"n_layers": 1, "n_heads": 2, "d_model": 8, "d_ff": 12}
    model = EncoderDecoder(EncoderDecoderConfig(vocab_size=61, context=16, **sizes))
    config = config_to_dict(model.config)
    save_checkpoint(tmp_path / "base", config=config, model=model.state_dict(), optimizer={}, state={})
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    values = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    assert values["auto_mapping"] == {"base_model_class": "EncoderDecoder", "parent_library": "minillm"}
    assert values["task_type"] == "SEQ_2_SEQ_LM" and values["target_modules"] == ["q_proj", "v_proj"]
    opened = open_checkpoint(tmp_path / "adapter")
    assert np.array_equal(opened.model()(IDS, IDS).data, model.eval()(IDS, IDS).data)
    convert(tmp_path / "adapter", tmp_path / "merged", to="minillm")
    merged = open_checkpoint(tmp_path / "merged").model()
    assert np.abs(merged(IDS, IDS).data - model(IDS, IDS).data).max() < 1e-5


def test_a_run_of_ours_as_the_base_model(tmp_path):
    """In our own format, but of an architecture that transformers has: the adapter has transformers' names."""
    theirs = open_base_of_ours(tmp_path)
    assert any(".h.0.attn.c_attn." in name for name in read_header(tmp_path / "adapter" / ADAPTER_WEIGHTS))
    assert np.array_equal(open_checkpoint(tmp_path / "adapter").model()(IDS).data, theirs(IDS).data)


def open_base_of_ours(tmp_path):
    saved_base("gpt2", tmp_path / "hf", "causal")
    convert(tmp_path / "hf", tmp_path / "base", to="minillm")
    model = open_checkpoint(tmp_path / "base").model()
    add_lora(model, LoraConfig(2), np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    return model


def test_a_bfloat16_model_is_merged_with_one_rounding(tmp_path):
    saved_base("llama", tmp_path / "wide", "causal")
    convert(tmp_path / "wide", tmp_path / "base", dtype="bfloat16")
    model = open_checkpoint(tmp_path / "base").model(dtype="float64")
    add_lora(model, CONFIG, np.random.default_rng(0))
    shake(model)
    save_adapter(model, tmp_path / "adapter", tmp_path / "base")
    convert(tmp_path / "adapter", tmp_path / "merged", dtype="bfloat16")
    rounded = open_checkpoint(tmp_path / "merged").model(dtype="float64")
    for name, layer in adapters(model).items():
        wide = layer.weight.data + layer.lora.scale * (layer.lora_B.data @ layer.lora_A.data)
        got = dict(rounded.named_parameters())[f"{name}.weight"].data
        assert (np.abs(got - wide) <= np.abs(wide) * 2**-8 + 1e-7).all()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern = {'q_proj': 4} is not supported"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not supported"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"something_new": 3}, "something_new = 3 is not supported"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"r": None}, "r = None must be"),
        ({"r": "8"}, "r is '8' and no int"),
        ({"r": 0}, "rank = 0 must be a whole number"),
        ({"lora_alpha": -1}, "alpha = -1 must be above 0"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(adapted, changes, message):
    _, folder = adapted
    with pytest.raises(ValueError) as error:
        open_checkpoint(rewritten(folder, **changes))
    assert message in str(error.value) and ADAPTER_CONFIG in str(error.value)


def test_what_has_no_meaning_for_a_trained_adapter_is_read_over(adapted):
    model, folder = adapted
    harmless = {"layers_to_transform": [0, 1], "megatron_core": "megatron.core", "qalora_group_size": 16}
    harmless |= {"peft_version": "1", "loftq_config": {}, "use_dora": False, "init_lora_weights": True}
    assert np.array_equal(open_checkpoint(rewritten(folder, **harmless)).model()(IDS).data, model(IDS).data)


def test_a_base_model_that_is_missing_says_what_to_do(adapted, tmp_path):
    _, folder = adapted
    for base in ("../gone", str(tmp_path / "gone")):
        with pytest.raises(NotFound, match=r"and its base model cannot be had.*as base_model_name_or_path in"):
            open_checkpoint(rewritten(folder, base_model_name_or_path=base))
    with pytest.raises(NotFound, match="does not name the model that it belongs to"):
        open_checkpoint(rewritten(folder, base_model_name_or_path=None))
    for base in (".", str(folder)):
        with pytest.raises(ConfigurationError, match="is an adapter itself"):
            open_checkpoint(rewritten(folder, base_model_name_or_path=base))
    for base in ("a\0b", "\ud800"):
        with pytest.raises(NotFound, match=rf"{ADAPTER_CONFIG}: '.*' is no name that a folder can have\."):
            open_checkpoint(rewritten(folder, base_model_name_or_path=base))


def test_an_adapter_that_belongs_to_another_model(adapted, tmp_path):
    _, folder = adapted
    saved_base("gpt2", tmp_path / "gpt2", "causal")
    with pytest.raises(WeightsError, match=r"fit a GPT:\n  no place for model\.layers\.0\.self_attn\.q_proj\.lora"):
        open_checkpoint(rewritten(folder, base_model_name_or_path="../gpt2"))
    with pytest.raises(WeightsError, match=r"lora_A\.weight is \(2, 12\), not \(3, 12\)"):
        open_checkpoint(rewritten(folder, base_model_name_or_path="../base", r=3))
    (folder / ADAPTER_WEIGHTS).write_bytes((folder / ADAPTER_WEIGHTS).read_bytes()[:-8])
    with pytest.raises(WeightsError, match="is cut off"):
        open_checkpoint(rewritten(folder, r=2))
    (folder / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=f"has no {ADAPTER_WEIGHTS}"):
        open_checkpoint(folder)


def test_a_tensor_that_lacks_its_other_half(adapted):
    _, folder = adapted
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / ADAPTER_WEIGHTS)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, folder / ADAPTER_WEIGHTS)
    with pytest.raises(WeightsError, match=r"blocks\.\d\.[a-z_.]* needs both lora_A and lora_B"):
        open_checkpoint(folder)
    save_file({**tensors, "base_model.model.model.embed_tokens.lora_embedding_A": np.zeros((2, 61), np.float32)},
              folder / ADAPTER_WEIGHTS)  # fmt: skip
    with pytest.raises(WeightsError, match=r"no place for model\.embed_tokens\.lora_embedding_A"):
        open_checkpoint(folder)


def test_nothing_is_written_over_what_is_not_an_adapter(adapted, tmp_path):
    model, _ = adapted
    with pytest.raises(FileExistsError):
        save_adapter(model, tmp_path / "base", tmp_path / "base")
    remove_lora(model)
    with pytest.raises(ValueError, match="has no LoRA adapters"):
        save_adapter(model, tmp_path / "none", tmp_path / "base")
    assert not (tmp_path / "none").exists()


def test_a_merged_model_saves_the_same_adapter(adapted, tmp_path):
    model, folder = adapted
    merge(model)
    save_adapter(model, tmp_path / "again", tmp_path / "base")
    assert (tmp_path / "again" / ADAPTER_WEIGHTS).read_bytes() == (folder / ADAPTER_WEIGHTS).read_bytes()
    unmerge(model)


def test_the_tokenizer_is_the_adapters_own_or_the_base_models(adapted):
    from minillm.tokenizers import CharTokenizer

    model, folder = adapted
    tokenizer = CharTokenizer.train(["abcdefg"])
    tokenizer.save(folder.parent / "base")
    assert open_checkpoint(folder).tokenizer().fingerprint() == tokenizer.fingerprint()
    own = CharTokenizer.train(["hijk"])
    save_adapter(model, folder, folder.parent / "base", tokenizer=own)
    assert open_checkpoint(folder).tokenizer().fingerprint() == own.fingerprint()
    convert(folder, folder.parent / "merged")
    assert open_checkpoint(folder.parent / "merged").tokenizer().fingerprint() == own.fingerprint()

"""One door: a checkpoint of either format gives its model on either engine, its tokenizer, and what commands need."""

import numpy as np
import pytest

from minillm.commands.cli import main
from minillm.generate import Sampling, generate, stream_text
from minillm.hub import AutoModel, PretrainedModel, PretrainedTokenizer, WeightsError
from minillm.hub.bart import BART_ONLY, MARIAN_ONLY
from minillm.hub.checkpoint import load_model_and_tokenizer, open_checkpoint
from minillm.hub.configs import ARCHITECTURES, architecture_of
from minillm.hub.convert import convert
from minillm.hub.names import hf_name
from minillm.models import (
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GemmaConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    MoeConfig,
    config_to_dict,
    model_from_config,
)
from minillm.tensor import Tensor
from minillm.tokenizers import BPETokenizer, CharTokenizer, Template
from minillm.tokenizers.extend import with_special_tokens
from minillm.training.checkpoint import CheckpointError, save_checkpoint

TOKENIZER = BPETokenizer.train(["the quick brown fox jumps over the lazy dog; the dog sleeps. " * 5], 280)
IDS = np.array([[5, 6, 7, 270, 1]])
SHAPE = {"vocab_size": 280, "context": 12, "n_layers": 2, "n_heads": 2, "d_model": 8}
CONFIGS = {
    "gpt": GPTConfig(**SHAPE),
    "llama": LlamaConfig(**SHAPE, d_ff=12, n_kv_heads=1),
    "qwen2": LlamaConfig(**SHAPE, d_ff=12, qkv_bias=True),
    "qwen3": LlamaConfig(**SHAPE, d_ff=12, qk_norm=True, tie_embeddings=True),
    "bert": BertConfig(**SHAPE, d_ff=12, next_sentence=True),
    "classifier": ClassifierConfig(GPTConfig(**SHAPE), n_labels=3, pad_id=0),
}


def save(config, folder, tokenizer=TOKENIZER, **state):
    """A run folder whose best checkpoint is a new model."""
    model = model_from_config(config, np.random.default_rng(3)).eval()
    arrays = {"model": model.state_dict(), "optimizer": {}}
    save_checkpoint(folder / "best", config=config_to_dict(config), **arrays, state=state, tokenizer=tokenizer)
    return model


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", CONFIGS)
def test_both_formats_on_both_engines(name, engine, tmp_path):
    model = save(CONFIGS[name], tmp_path / "run", tokenizer_of_run="x")
    convert(tmp_path / "run", tmp_path / "hf")
    for folder in (tmp_path / "run", tmp_path / "hf"):
        loaded, tokenizer = load_model_and_tokenizer(folder, engine=engine)
        assert not loaded.training
        assert tokenizer.encode("the dog") == TOKENIZER.encode("the dog")
        if engine == "torch":
            torch = pytest.importorskip("torch")
            with torch.no_grad():
                assert np.abs(loaded(torch.tensor(IDS)).numpy() - model(IDS).data).max() < 1e-5
        else:
            assert np.array_equal(loaded(IDS).data, model(IDS).data)
        if model.config.task == "causal":
            greedy = {"max_new_tokens": 5, "sampling": Sampling(temperature=0)}
            assert generate(loaded, [[3, 4]], **greedy) == generate(model, [[3, 4]], **greedy)


def test_a_llama_begins_and_ends_as_its_files_say(tmp_path, capsys):
    """Its start token comes before the prompt, an empty one included, and its end token ends what is written."""
    tokenizer = with_special_tokens(TOKENIZER, ["<s>", "</s>"])
    tokenizer.template = Template((("<s>", 0), ("$A", 0)), (("<s>", 0), ("$A", 0), ("$B", 0)), {"<s>": (280,)})
    config = LlamaConfig(**{**SHAPE, "vocab_size": 282}, d_ff=12)
    PretrainedModel(model_from_config(config)).save_pretrained(tmp_path)
    PretrainedTokenizer(tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}).save_pretrained(tmp_path)
    loaded, core = load_model_and_tokenizer(tmp_path)
    assert core.eos_id == 281
    seen, hidden = [], loaded.hidden
    loaded.hidden = lambda ids, cache=None: (seen.append(ids.tolist()), hidden(ids, cache))[1]
    for prompt in ("", "the"):
        list(stream_text(loaded, core, prompt, max_new_tokens=1, plain=True))
    assert seen == [[[280]], [[280, *TOKENIZER.encode("the")]]]
    loaded.logits = lambda h: Tensor(np.eye(1, 282, 281, dtype=np.float32))
    greedy = Sampling(temperature=0)
    assert list(stream_text(loaded, core, "the", max_new_tokens=3, sampling=greedy, plain=True)) == []
    assert main(["generate", str(tmp_path), "--prompt", "the", "--max-new-tokens", "3", "--engine", "torch"]) == 0
    assert capsys.readouterr().out.startswith("the")


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_the_commands_say_the_same_of_both_formats(name, tmp_path, capsys):
    save(CONFIGS[name], tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "hf")
    said = {}
    (tmp_path / "text.txt").write_text("the lazy dog jumps over the fox. " * 20)
    for kind in ("run", "hf"):
        said[kind] = []
        for command in (
            ["generate", str(tmp_path / kind), "--prompt", "the dog", "--max-new-tokens", "4", "--temperature", "0"],
            ["evaluate", str(tmp_path / kind), "--data", str(tmp_path / "text.txt"), "--context", "8"],
        ):
            for engine in ("numpy", "torch"):
                assert main([*command, "--engine", engine]) == 0
                said[kind].append(capsys.readouterr().out.rpartition("text.txt: ")[2])
    assert said["run"] == said["hf"] and "bits per byte" in said["hf"][2]
    assert said["hf"][0] == said["hf"][1] and said["hf"][2] == said["hf"][3], "both engines say the same"


def test_a_tokenizer_that_does_not_belong_there(tmp_path):
    save(CONFIGS["gpt"], tmp_path / "a", tokenizer=TOKENIZER)
    convert(tmp_path / "a", tmp_path / "hf")
    CharTokenizer.train(["".join(map(chr, range(200, 600)))]).save(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=r"the tokenizer has .* ids but the model in .* only 280"):
        load_model_and_tokenizer(tmp_path / "hf")
    (tmp_path / "hf/tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        load_model_and_tokenizer(tmp_path / "hf")


def test_a_model_without_a_head_predicts_nothing(tmp_path):
    model = model_from_config(CONFIGS["qwen3"])
    PretrainedModel(model, "base").save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    with pytest.raises(ValueError, match="a model without a head"):
        load_model_and_tokenizer(tmp_path)


def test_a_pooler_is_kept_where_nobody_asked_for_another_head(tmp_path):
    """One rule: what convert and inspect open has all that the files hold; a task's model what its loss reaches."""
    PretrainedModel(model_from_config(CONFIGS["bert"])).save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).config.next_sentence
    asked = open_checkpoint(tmp_path, "mlm")
    assert not asked.config.has_pooler and "cls.seq_relationship.weight" in asked.plan.unused
    assert open_checkpoint(tmp_path, "base").config.pooler
    PretrainedModel(model_from_config(BertConfig(**SHAPE, d_ff=12))).save_pretrained(tmp_path / "mlm")
    with pytest.warns(UserWarning, match="not used"):
        assert AutoModel.from_pretrained(tmp_path / "mlm").model.pooler is None


def test_a_tied_head_stands_in_for_the_table_that_a_file_lacks(tmp_path):
    """safetensors keeps one of two tensors that share memory, and not always the first."""
    from safetensors.numpy import load_file, save_file

    config = LlamaConfig(**SHAPE, d_ff=12, tie_embeddings=True)
    model = model_from_config(config).eval()
    PretrainedModel(model).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    assert np.array_equal(open_checkpoint(tmp_path).model()(IDS).data, model(IDS).data)
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing: model.embed_tokens.weight \(280, 8\)"):
        open_checkpoint(tmp_path)


SHAPES = {
    "gpt2": CONFIGS["gpt"],
    **{name: CONFIGS[name] for name in ("llama", "qwen2", "qwen3", "bert")},
    "mistral": LlamaConfig(**SHAPE, d_ff=12, window=4),
    "ministral": LlamaConfig(**SHAPE, d_ff=12, window=4, full_layers=(1,)),
    "gemma3_text": GemmaConfig(**SHAPE, d_ff=12, window=4, full_layers=(1,)),
    "roberta": BertConfig(**SHAPE, d_ff=12, family="roberta", pad_id=1, token_types=1, next_sentence=False),
    "xlm-roberta": BertConfig(**SHAPE, d_ff=12, family="roberta", pad_id=1, token_types=1, next_sentence=False),
    "distilbert": BertConfig(**SHAPE, d_ff=12, family="distilbert", next_sentence=False),
    "qwen3_moe": MoeConfig(**SHAPE, d_ff=12, n_experts=3, dense_layers=(0,)),
    "gpt_oss": MoeConfig(**SHAPE, d_ff=12, qk_norm=False, attention_sinks=True, router_bias=True, swiglu_limit=7.0),
    "bart": EncoderDecoderConfig(**SHAPE, d_ff=12, **BART_ONLY),
    "marian": EncoderDecoderConfig(**SHAPE, d_ff=12, **MARIAN_ONLY),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tables_name_what_the_models_have(name):
    """Each setting of ours is a field of the config, each parameter has a name there, and no name stands for two."""
    architecture = ARCHITECTURES[name]
    config = SHAPES[name]
    assert architecture_of(config).model_type in (name, *architecture.also)
    fields = config_to_dict(config)
    assert all(ours in fields for ours, _ in architecture.settings.values())
    theirs = [hf_name(ours, architecture) for ours, _ in model_from_config(config).named_parameters()]
    assert len(set(theirs)) == len(theirs)
    assert all(their.startswith((architecture.prefix, *architecture.head_names)) for their in theirs)


@pytest.mark.filterwarnings("ignore:.*no weights for")
def test_a_new_head_is_the_same_on_both_engines(tmp_path):
    torch = pytest.importorskip("torch")
    PretrainedModel(model_from_config(CONFIGS["gpt"])).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path, "classification")
    assert checkpoint.plan.fresh == ["score.weight"]
    ours, again = checkpoint.model(seed=5), checkpoint.model(seed=6)
    theirs = checkpoint.model(engine="torch", seed=5)
    assert np.array_equal(ours.score.weight.data, theirs.score.weight.detach().numpy())
    assert not np.array_equal(ours.score.weight.data, again.score.weight.data)
    for model in (ours, theirs):  # which draws dropout, and would draw another head
        assert type(model.rng) is type(model.decoder.dropout.rng) is np.random.Generator
    assert not any(isinstance(p, torch.Tensor) and p.is_meta for p in theirs.parameters())


@pytest.mark.parametrize("config", [LSTMConfig(vocab_size=280, d_model=8), EncoderDecoderConfig(**SHAPE, d_ff=12)])
def test_what_transformers_has_not_opens_too(config, tmp_path):
    model = save(config, tmp_path)
    assert open_checkpoint(tmp_path).head == config.task
    loaded, _ = load_model_and_tokenizer(tmp_path)
    ids = (IDS, IDS) if config.task == "seq2seq" else (IDS,)
    assert np.array_equal(loaded(*ids).data, model(*ids).data)

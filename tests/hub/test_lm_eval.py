"""The lm-eval harness runs its tasks on our models, of either engine, and gets what it gets from transformers'."""

import importlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

# No warning of theirs is ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed", exc_type=ImportError)
pytest.importorskip("torch")

from hf_models import build  # noqa: E402

from minillm.generate import Sampling, generate  # noqa: E402
from minillm.hub import PretrainedTokenizer  # noqa: E402
from minillm.hub.checkpoint import load_model_and_tokenizer  # noqa: E402
from minillm.hub.lm_eval import HarnessModel  # noqa: E402
from minillm.models import GPT, GPTConfig  # noqa: E402
from minillm.models.bert import Bert, BertConfig  # noqa: E402
from minillm.tokenizers import BPETokenizer, Template  # noqa: E402
from minillm.tokenizers.extend import with_special_tokens  # noqa: E402

TEXT = "the cat sat on the mat. the dog ran to the cat! 我爱北京。 a mat is not a dog, is it?\n" * 3
TOKENIZER = BPETokenizer.train([TEXT], vocab_size=300, special_tokens=["<|endoftext|>"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2")
    settings = {"eos_token_id": TOKENIZER.eos_id, "bos_token_id": TOKENIZER.eos_id}
    build("gpt2", vocab_size=TOKENIZER.vocab_size, n_positions=16, **settings).save_pretrained(path)
    PretrainedTokenizer(TOKENIZER, {"eos_token": "<|endoftext|>"}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")  # which theirs needs
    from lm_eval.models.huggingface import HFLM

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # Its cache takes (ab, c) and (a, bc) for one question when both are asked, and answers one of them wrong.
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, device="cpu", logits_cache=False)


@pytest.fixture(params=["numpy", "torch"])
def ours(folder, request):
    return HarnessModel(*load_model_and_tokenizer(folder, engine=request.param), batch_size=3)


def asked(*many):
    return [SimpleNamespace(args=arguments, task_name="made here") for arguments in many]


def texts(rng, n, most):
    return ["".join(rng.choice(list(TEXT), size=rng.integers(1, most))) for _ in range(n)]


def test_continuations_are_as_likely_as_by_transformers(ours, theirs):
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a, b in zip(texts(rng, 40, 40), texts(rng, 40, 8)) if b.strip()]
    pairs += [("", "the cat"), ("the ", "cat"), ("the  ", " mat"), ("<|endoftext|>the", " dog"), ("", "<|endoftext|>a")]
    pairs += [(context, f" {context}"[:5]) for context in texts(rng, 5, 30)]
    found, expected = ours.loglikelihood(asked(*pairs)), theirs.loglikelihood(asked(*pairs), disable_tqdm=True)
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], rtol=2e-5, atol=2e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_a_context_of_spaces_is_part_of_what_follows(ours):
    spaces, none = ours.loglikelihood(asked((" \n", "the cat"), ("", " \nthe cat")))
    assert spaces == none and spaces[0] < 0
    assert ours.loglikelihood(asked(("the", ""))) == [(0.0, True)]


def test_what_greedy_decoding_gives_is_called_greedy(ours):
    model, tokenizer = ours.model, ours.tokenizer
    context = "the cat"
    (new,) = generate(model, [tokenizer.encode(context)], max_new_tokens=3, sampling=Sampling(temperature=0))
    others = [*new[:2], (new[2] + 1) % tokenizer.vocab_size]
    scored = ours.scores([(tokenizer.encode(context), new), (tokenizer.encode(context), others)])
    assert [greedy for _, greedy in scored] == [True, False] and scored[0][0] > scored[1][0]


def test_whole_texts_are_as_likely_as_by_transformers(ours, theirs):
    rng = np.random.default_rng(1)
    whole = [(text,) for text in [*texts(rng, 8, 90), "the", TEXT[:120], ""]]
    found = ours.loglikelihood_rolling(asked(*whole))
    np.testing.assert_allclose(found, theirs.loglikelihood_rolling(asked(*whole), disable_tqdm=True), rtol=2e-5)
    assert found[-1] == 0


def test_continuations_are_those_of_transformers(ours, theirs):
    settings = ({"until": ["."], "max_gen_toks": 6}, {"until": "t", "max_gen_toks": 9, "do_sample": False})
    many = [(text, dict(one)) for text in ("the cat", "a dog, is", TEXT[:60]) for one in settings]
    assert ours.generate_until(asked(*many)) == theirs.generate_until(asked(*many), disable_tqdm=True)
    assert all("t" not in ours.continuation(text, {"until": ["t", ""], "max_gen_toks": 9}) for text in ("a", "the"))


def test_a_task_made_here(folder, theirs, tmp_path):
    """A task as the harness reads it, on a file of this machine: multiple choice, then perplexity, then generation."""
    from lm_eval.tasks import TaskManager

    choices = [" sat", " ran!", " 北京"]
    rows = [{"q": f"the {a}", "choices": choices, "label": i % 3} for i, a in enumerate(TEXT.split()[:7])]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/data.jsonl}}, cache_dir: {tmp_path}/cache}}
test_split: test
doc_to_text: "{{{{q}}}}"
metadata: {{version: 1}}
"""
    kinds = {
        "made_choice": "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\ndoc_to_target: '{{label}}'\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]",
        "made_perplexity": "output_type: loglikelihood_rolling\ndoc_to_target: '{{q}}'\n"
        "metric_list: [{metric: byte_perplexity}]",
        "made_generation": "output_type: generate_until\ndoc_to_target: ' sat'\n"
        "generation_kwargs: {until: ['!'], max_gen_toks: 5, do_sample: false}\nmetric_list: [{metric: exact_match}]",
    }
    for name, text in kinds.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{common}{text}\n", encoding="utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    run = importlib.import_module("lm_eval").simple_evaluate
    options = {"tasks": list(kinds), "task_manager": manager, "bootstrap_iters": 0, "log_samples": False}
    ours = HarnessModel(*load_model_and_tokenizer(folder), batch_size=3)
    found, expected = run(ours, **options)["results"], run(theirs, **options)["results"]
    assert set(found) == set(kinds)
    for name, values in expected.items():
        numbers = {key: value for key, value in values.items() if isinstance(value, float)}
        assert numbers and {key: found[name][key] for key in numbers} == pytest.approx(numbers, rel=1e-4)


def test_a_start_token_comes_first():
    core = with_special_tokens(TOKENIZER, ["<s>"])
    start = core.special_tokens["<s>"]
    core.template = Template((("<s>", 0), ("$A", 0)), (("<s>", 0), ("$A", 0), ("$B", 0)), {"<s>": (start,)})
    model = HarnessModel(GPT(GPTConfig(vocab_size=core.vocab_size, context=8, n_layers=1, n_heads=1, d_model=8)), core)
    assert model.start_id == start
    assert model.pair("", "the") == ([start], core.encode("the"))
    assert model.pair("the", " cat") == ([start, *core.encode("the")], core.encode(" cat"))
    assert model.pair("<s>the", " cat")[0][0] == start


def test_what_cannot_be_asked():
    small = {"vocab_size": 300, "context": 8, "n_layers": 1, "n_heads": 1, "d_model": 8}
    model = GPT(GPTConfig(**small))
    with pytest.raises(ValueError, match="fills in hidden tokens"):
        HarnessModel(Bert(BertConfig(vocab_size=300, context=8, n_layers=1, n_heads=1, d_model=8)), TOKENIZER)
    with pytest.raises(ValueError, match="batch_size = 0"):
        HarnessModel(model, TOKENIZER, batch_size=0)
    with pytest.raises(ValueError, match="neither a start token nor an end of text"):
        HarnessModel(model, BPETokenizer.train([TEXT], vocab_size=300, special_tokens=[]))
    harness = HarnessModel(model, TOKENIZER)
    with pytest.raises(ValueError, match=r"\['num_beams'\] are no settings"):
        harness.continuation("a", {"num_beams": 4})
    with pytest.raises(ValueError, match="9 tokens is longer than the context, 8"):
        harness.scores([([1], list(range(9)))])
    model.train()
    harness.scores([([1], [2])])
    assert model.training

"""minillm inspect: the figures are those of the model and the arithmetic said in the report; cards by any spelling."""

import re

import pytest

from minillm.commands.cli import main
from minillm.commands.inspect import duration, inspect
from minillm.commands.table import table
from minillm.costs.cards import CARDS, find_card
from minillm.costs.scaling import CHINCHILLA
from minillm.costs.sizes import active_parameters, cache_bytes, n_parameters, training_flops, training_memory
from minillm.hub import PretrainedModel
from minillm.models import GPT, LSTM, Bert, BertConfig, GPTConfig, Llama, LlamaConfig, LSTMConfig, Moe, MoeConfig

SMALL = {"vocab_size": 500, "context": 64, "n_layers": 3, "n_heads": 4, "d_model": 32}
LLAMA = LlamaConfig(**SMALL, n_kv_heads=2, d_ff=80)


@pytest.fixture
def llama(tmp_path):
    PretrainedModel(Llama(LLAMA)).save_pretrained(tmp_path / "llama", dtype="bfloat16", max_shard_size="50KB")
    return str(tmp_path / "llama")


def figure(report, section, row, column=0):
    """The number in a row of the section whose title begins so."""
    lines = next(part for part in report.split("\n\n") if part.startswith(section)).splitlines()
    line = next(line for line in lines[1:] if line.strip().startswith(row))
    return float(re.findall(r"[\d,]+(?:\.\d+)?", line.strip()[len(row) :])[column].replace(",", ""))


def test_parameters_memory_and_operations(llama):
    report = inspect(llama, batch_size=4, context=48)
    n = sum(p.size for p in (p.data for p in Llama(LLAMA).parameters()))
    assert figure(report, "parameters", "total") == n
    parts = next(part for part in report.split("\n\n") if part.startswith("parameters")).splitlines()[1:-1]
    assert sum(int(line.split()[-2].replace(",", "")) for line in parts) == n
    memory = training_memory(LLAMA, 4, 48)
    assert figure(report, "memory to train", "gradients") == round(4 * n / 1e6, 3)
    assert figure(report, "memory to train", "total") == round(memory.total / 1e6, 3)
    assert figure(report, "million operations", "training step") == round(training_flops(LLAMA, 48) / 1e6, 3)
    assert "LlamaForCausalLM (llama), Hugging Face's format" in report
    assert re.search(r"30 tensors, bfloat16, 0\.\d MB in \d files", report), report


def test_the_cache_is_counted_in_the_dtype_of_the_file(llama):
    assert cache_bytes(LLAMA, 1000, 64, 2) > 5e6
    report = inspect(llama, batch_size=1000, context=64)
    assert figure(report, "memory to run in bfloat16", "cache") == round(cache_bytes(LLAMA, 1000, 64, 2) / 1e6, 3)


def test_time_and_cost_on_a_card(llama):
    report = inspect(llama, context=32, card="a100", mfu=0.5, tokens=1e12, price=2.0)
    seconds = 1e12 * training_flops(LLAMA, 32) / (312e12 * 0.5)
    assert figure(report, "training on one A100 (312 TFLOP/s peak, 50% of it", "cost") == round(seconds / 3600 * 2, 2)
    assert figure(report, "training on one A100", "tokens per second") == round(1e12 / seconds)
    assert f"{duration(seconds / 3600)}" in report and "fits" in report
    n, d = (figure(report, "training on one A100", f"Chinchilla's {what}") for what in ("parameters", "tokens"))
    assert 6 * n * d == pytest.approx(1e12 * training_flops(LLAMA, 32), rel=1e-3)
    assert (n, d) == pytest.approx(CHINCHILLA.optimum(6 * n * d), rel=1e-3)
    n_bytes = 2 * figure(report, "parameters", "total") + cache_bytes(LLAMA, 8, 32, 2)
    expected = 8 * 2039e9 / n_bytes
    assert figure(report, "decoding on one A100", "tokens per second, at most") == pytest.approx(expected, abs=1)
    assert "give --price" in inspect(llama, card="a100")


def test_what_does_not_fit_says_so(tmp_path):
    huge = GPTConfig(vocab_size=100, context=8000, n_layers=2, n_heads=2, d_model=64)
    PretrainedModel(GPT(huge)).save_pretrained(tmp_path)
    report = inspect(str(tmp_path), batch_size=8000, card="T4")
    assert "does not fit. With engine.recompute=layers (--set) it takes about" in report
    assert "A smaller batch takes less, too." in report and "do not fit into its 16 GB" in report


@pytest.mark.parametrize(
    "model",
    [
        Bert(BertConfig(vocab_size=60, context=16, n_layers=1, n_heads=2, d_model=8, d_ff=12, head="classification")),
        Bert(BertConfig(vocab_size=60, context=16, n_layers=1, n_heads=2, d_model=8, d_ff=12, head="none")),
        LSTM(LSTMConfig(vocab_size=60, d_model=8)),
    ],
)
def test_every_architecture(model, tmp_path):
    PretrainedModel(model).save_pretrained(tmp_path)
    report = inspect(str(tmp_path), card="H100")
    assert figure(report, "parameters", "total") == sum(p.data.size for p in model.parameters())
    assert ("decoding" in report) == isinstance(model, LSTM)


@pytest.mark.parametrize("spelling", ["RTX 4090", "rtx4090", "4090", "NVIDIA RTX 4090"])
def test_cards_by_any_spelling(spelling):
    assert find_card(spelling) == ("RTX 4090", CARDS["RTX 4090"])


def test_wrong_arguments(llama):
    with pytest.raises(ValueError, match=r"no card 'h10' is known\. Did you mean 'H100'\? Known: B200"):
        inspect(llama, card="h10")
    with pytest.raises(ValueError, match="context = 65 must be from 1 to the model's, 64"):
        inspect(llama, context=65)
    with pytest.raises(ValueError, match=r"mfu = 1\.2"):
        inspect(llama, card="h100", mfu=1.2)
    with pytest.raises(ValueError, match="tokens = -1"):
        inspect(llama, card="h100", tokens=-1)
    for wrong in ({"tokens": float("nan")}, {"tokens": float("inf")}, {"price": float("nan")}):
        with pytest.raises(ValueError, match="must be a number"):
            inspect(llama, card="h100", **wrong)
    for wrong in ({"price": 2.0}, {"tokens": 1e9}):
        with pytest.raises(ValueError, match=r"without a card.*Name one"):
            inspect(llama, **wrong)
    with pytest.raises(ValueError, match="batch_size = 0"):
        inspect(llama, batch_size=0)


def test_durations_and_tables():
    hours = [1 / 3600, 0.05, 7, 60, 24 * 1000]
    assert [duration(h) for h in hours] == ["1 seconds", "3.0 minutes", "7.0 hours", "2.5 days", "2.7 years"]
    assert table("t", [("a", "1")], ("c",)) == "t\n     c\n  a  1"


def test_the_command(llama, capsys):
    assert main(["inspect", llama, "--batch-size", "2", "--context", "16", "--card", "h200", "--price", "3"]) == 0
    assert "training on one H200" in capsys.readouterr().out
    assert main(["inspect", llama + "/nowhere"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_of_experts_what_a_token_meets(tmp_path):
    config = MoeConfig(**SMALL, d_ff=80, n_kv_heads=2, n_experts=8, top_k=2)
    PretrainedModel(Moe(config)).save_pretrained(tmp_path)
    report = inspect(str(tmp_path))
    total, active = (figure(report, "parameters", row) for row in ("total", "active for each token"))
    assert total == n_parameters(config) and active == active_parameters(config)
    assert total - active == 3 * 6 * 3 * 32 * 40  # 6 of 8 experts in each of 3 layers
    assert "Qwen3MoeForCausalLM (qwen3_moe)" in report

"""`minillm finetune sft|reward|dpo|grpo|distill`, and what the other commands make of their runs."""

import itertools
import json
import signal

import numpy as np
import pytest
from command_line import minillm

from minillm.generate import Sampling, generate, known_ids
from minillm.hub.assistants import open_assistant
from minillm.hub.conversation import Conversation
from minillm.models import GPT, GPTConfig, Llama, LlamaConfig, config_to_dict
from minillm.tokenizers import BPETokenizer
from minillm.training.checkpoint import read_checkpoint, save_checkpoint
from minillm.training.run_log import read_metrics

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Poland": "Warsaw", "Norway": "Oslo", "Japan": "Tokyo",
    "Peru": "Lima", "Egypt": "Cairo", "Kenya": "Nairobi", "Cuba": "Havana", "Chad": "Ndjamena", "Mali": "Bamako",
}  # fmt: skip
FEW = ["--set", "train.max_steps=4", "--set", "train.eval_every=2", "--set", "train.save_every=2",
       "--set", "train.warmup_steps=1", "--set", "train.batch_size=4", "--set", "engine.threads=1",
       "--set", "chat.max_new_tokens=8"]  # fmt: skip
LEARN = ["--set", "train.max_steps=90", "--set", "train.lr=1e-2", "--set", "train.batch_size=12",
         "--set", "train.eval_every=90", "--set", "train.save_every=90", "--set", "engine.threads=1"]  # fmt: skip


def question(country):
    return f"The capital of {country}?"


def chat(*texts):
    return [{"role": role, "content": text} for role, text in zip(itertools.cycle(["user", "assistant"]), texts)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def save_model(folder, model, tokenizer):
    config = config_to_dict(model.config)
    save_checkpoint(folder, config=config, model=model.state_dict(), optimizer={}, state={}, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two base models that know no chats, and files of one's own."""
    folder = tmp_path_factory.mktemp("assistants")
    rows = [chat(question(country), capital + ".") for country, capital in CAPITALS.items()]
    write_lines(folder / "chats.jsonl", [{"messages": row} for row in rows])
    again = [chat(f"Where do they govern {country}?", capital + ".") for country, capital in CAPITALS.items()]
    write_lines(folder / "again.jsonl", [{"messages": row} for row in again])
    pairs = [{"prompt": question(c), "chosen": k + ".", "rejected": "No."} for c, k in CAPITALS.items()]
    write_lines(folder / "pairs.jsonl", pairs)
    write_lines(folder / "prompts.jsonl", [{"prompt": question(c), "answer": k} for c, k in CAPITALS.items()])
    (folder / "rewards.py").write_text("def short(answer, record):\n    return -len(answer)\n")
    texts = [turn["content"] for row in rows for turn in row]
    tokenizer = BPETokenizer.train(texts, 280, special_tokens=["<|endoftext|>"])
    shape = {"context": 64, "n_layers": 1, "n_heads": 2, "d_model": 32}
    rng = np.random.default_rng(0)
    save_model(folder / "gpt", GPT(GPTConfig(tokenizer.vocab_size, **shape), rng), tokenizer)
    save_model(folder / "llama", Llama(LlamaConfig(tokenizer.vocab_size, d_ff=48, **shape), rng), tokenizer)
    return folder


def sft(folder, out, *options, base="llama", status=0, capsys=None):
    given = ["--model", folder / base, "--data", folder / "chats.jsonl", "--out", out]
    return minillm("finetune", "sft", *given, *options, status=status, capsys=capsys)


def learn(folder):
    """Options with which the capitals are known in the end."""
    return ["--val", folder / "again.jsonl", *LEARN]


@pytest.fixture(scope="module")
def run(folder):
    sft(folder, folder / "run", *learn(folder))
    return folder / "run"


# --- out of here: one answer, wherever the model goes -----------------------------------------------------------------


def greedy(conversation, text, n=24):
    """The ids of an answer, with what ends it."""
    core, ids = conversation.template.tokenizer, conversation.template.prompt(chat(text))
    options = {"stop_ids": conversation.stop_ids, "keep_stop_id": True, "allowed": known_ids(core)}
    return generate(conversation.model, [ids], max_new_tokens=n, sampling=Sampling(temperature=0), **options)[0]


def said_by_llama_cpp(file, asked, n=24):
    """The ids of llama.cpp's answers to chats that begin with a text, written by the template in the file."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp itself, to compare with, is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel, parameters.warmup = str(file), 64, 1, False
    parameters.cpuparams.n_threads, parameters.verbosity = 1, -1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.use_jinja = True
    server, found = xllamacpp.Server(parameters), []
    for text in asked:
        given = {"messages": chat(text), "max_tokens": n, "temperature": 0, "logprobs": True}
        answer = server.handle_chat_completions(given)
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        found.append(answer["choices"][0])
    return found


def said_by_transformers(folder, text, n=24):
    """The ids of an answer of its own `generate`, which is told nothing of where answers end."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    given = tokenizer.apply_chat_template(chat(text), add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**given, max_new_tokens=n, do_sample=False, pad_token_id=0)
    return answer[0, given["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("base, method", [("llama", "full"), ("llama", "lora"), ("gpt", "full"), ("gpt", "lora")])
def test_the_run_its_whole_folders_and_llama_cpp_answer_alike(base, method, folder, tmp_path):
    run = tmp_path / "run"
    sft(folder, run, *learn(folder), "--method", method, "--set", "method.targets=all-linear", base=base)
    asked = [question(country) for country in CAPITALS]
    conversation = Conversation.open(run)
    ours = [greedy(conversation, text) for text in asked]
    end = conversation.template.end_of_turn
    assert all(ids[-1] == end for ids in ours) and len(set(map(tuple, ours))) > 6
    for to in ("hf", "minillm"):
        minillm("convert", run, tmp_path / to, "--to", to)
        again = Conversation.open(tmp_path / to)
        assert [greedy(again, text) for text in asked] == ours
        assert again.stop_ids == conversation.stop_ids
    assert [said_by_transformers(tmp_path / "hf", text) for text in asked[:3]] == ours[:3]
    minillm("convert", run, tmp_path / "model.gguf", "--to", "gguf")
    for ids, choice in zip(ours, said_by_llama_cpp(tmp_path / "model.gguf", asked)):
        assert choice["message"]["content"] == conversation.template.tokenizer.decode(ids[:-1])
        assert choice["finish_reason"] == "stop"


# --- every way to learn: both engines, interrupted and resumed --------------------------------------------------------

WAYS = {
    "sft": ["--data", "chats.jsonl"],
    "reward": ["--data", "pairs.jsonl"],
    "dpo": ["--data", "pairs.jsonl"],
    "grpo": ["--data", "prompts.jsonl", "--reward", "rewards.py:short", "--set", "grpo.max_new_tokens=6",
             "--set", "grpo.group=2", "--set", "grpo.prompts_per_step=4", "--set", "grpo.inner_epochs=2"],
    "distill": ["--data", "chats.jsonl", "--teacher", "run", "--set", "distill.method=on-policy",
                "--set", "distill.max_new_tokens=6"],
}  # fmt: skip
NAMED = ("--data", "--teacher", "--reward")


def way(folder, kind, out, *options, method="full", model="run", status=0, capsys=None):
    """One run of a few steps, of the model `model` in the folder."""
    given = [f"{folder}/{text}" if before in NAMED else text for before, text in zip(["", *WAYS[kind]], WAYS[kind])]
    given += ["--model", folder / model, "--method", method, "--out", out]
    return minillm("finetune", kind, *given, *FEW, *options, status=status, capsys=capsys)


def logged(run):
    """All that the log says of steps and evaluations, but for time and memory."""
    machine = ("seconds", "tokens_per_second", "memory_gb")
    return [{k: v for k, v in row.items() if k not in machine} for row in read_metrics(run / "metrics.jsonl")]


class Interrupted:
    """Stands for StopRequest: Ctrl-C during the third step."""

    steps = 0

    def __init__(self):
        self.signal = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def requested(self):
        self.steps += 1
        self.signal = signal.SIGINT if self.steps >= 3 else None
        return float(self.signal is not None)


@pytest.mark.parametrize(
    "kind, engine, method",
    [*((kind, "numpy", "full") for kind in WAYS), ("dpo", "numpy", "lora"), ("grpo", "numpy", "lora"),
     ("sft", "torch", "lora"), ("dpo", "torch", "qlora"), ("grpo", "torch", "full")],
)  # fmt: skip
def test_a_run_that_is_interrupted_goes_on_to_the_same_end(kind, engine, method, run, folder, tmp_path, monkeypatch):
    options = ["--engine", engine]
    way(folder, kind, tmp_path / "whole", *options, method=method)
    with monkeypatch.context() as patch:
        patch.setattr("minillm.training.train.StopRequest", Interrupted)
        way(folder, kind, tmp_path / "cut", *options, method=method, status=128 + signal.SIGINT)
    minillm("finetune", "--resume", "--out", tmp_path / "cut")
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole") and len(logged(tmp_path / "cut")) == 6
    for name, array in read_checkpoint(tmp_path / "whole" / "last").model.items():
        np.testing.assert_array_equal(read_checkpoint(tmp_path / "cut" / "last").model[name], array)
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert report["scores"] == json.loads((tmp_path / "whole" / "report.json").read_text())["scores"]

"""`minillm finetune sft|reward|dpo|grpo|distill`, and what the other commands make of their runs."""

import itertools
import json
import shlex
import shutil
import signal

import numpy as np
import pytest
from command_line import minillm

from minillm.assistant.report import reward_curve
from minillm.generate import Sampling, generate, known_ids
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.conversation import Conversation
from minillm.models import GPT, Bert, BertConfig, GPTConfig, Llama, LlamaConfig, config_to_dict
from minillm.tokenizers import BPETokenizer, WordPieceTokenizer
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


def test_settings_that_changed_are_named_when_a_run_goes_on(run, folder, tmp_path, capsys):
    way(folder, "dpo", tmp_path / "run")
    changed = ["--set", "train.max_steps=6", "--loss", "ipo", "--set", "chat.train_on=last"]
    said = minillm("finetune", "--resume", "--out", tmp_path / "run", *changed, capsys=capsys)
    assert "chat.train_on was 'assistant', is 'last'" in said and "preference.loss was 'dpo', is 'ipo'" in said


def test_qlora_learns_sft_and_answers_on_torch_only(run, folder, tmp_path, capsys):
    way(folder, "sft", tmp_path / "run", "--engine", "torch", method="qlora")
    said = minillm("chat", tmp_path / "run", status=2, capsys=capsys)
    assert "give --engine torch" in said
    said = minillm("convert", tmp_path / "run", tmp_path / "whole", status=2, capsys=capsys)
    assert f"Convert {tmp_path / 'run/adapter'}: its adapters on" in said
    minillm("convert", tmp_path / "run/adapter", tmp_path / "whole")
    conversation = Conversation.open(tmp_path / "run", engine="torch")
    assert "".join(conversation.answer("Hello", max_new_tokens=3))


# --- what is wrong is said, with the place and what to do -------------------------------------------------------------

LONG = "word " * 80
BAD_CHATS = {  # what stands in line 13 -> what is said
    "roles": ([("user", "a"), ("user", "b"), ("assistant", "c")], "two messages of the user in a row"),
    "first": ([("assistant", "a"), ("user", "b"), ("assistant", "c")], "begins with the assistant"),
    "stranger": ([("user", "a"), ("bot", "b")], "has the role 'bot'"),
    "empty": ([("user", "a"), ("assistant", " ")], "is empty"),
    "end": ([("user", "a"), ("assistant", "b"), ("user", "c")], "ends without an answer"),
    "long": ([("user", LONG), ("assistant", "b")], "tokens, and the model takes 64"),
    "control": ([("user", "<|im_end|>"), ("assistant", "b")], "a control token of this model"),
}


def chats_with(path, turns):
    rows = [{"messages": chat(question(country), capital + ".")} for country, capital in CAPITALS.items()]
    return write_lines(path, [*rows, {"messages": [{"role": role, "content": text} for role, text in turns]}])


@pytest.mark.parametrize("name", BAD_CHATS)
def test_a_bad_chat_is_named_or_left_out(name, folder, tmp_path, capsys):
    turns, says = BAD_CHATS[name]
    path = chats_with(tmp_path / "bad.jsonl", turns)
    given = ["sft", "--model", folder / "llama", "--data", path, *FEW, "--out", tmp_path / "run"]
    said = minillm("finetune", *given, status=2, capsys=capsys)
    assert "bad.jsonl, line 13: " in said and says in said and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()
    said = minillm("finetune", *given, "--skip-bad", capsys=capsys)
    assert "1 of 12 examples in train are left out, the first:" in said or "1 skipped: " in said or "left out" in said
    assert "line 13" in said


BAD_PAIRS = {
    "same": ({"prompt": "x", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
    "empty": ({"prompt": "x", "chosen": "a", "rejected": " "}, "'rejected' is empty"),
    "long": ({"prompt": LONG, "chosen": "a", "rejected": "b"}, "and the model takes 64"),
}


@pytest.mark.parametrize("kind, name", [("dpo", "same"), ("dpo", "long"), ("reward", "empty"), ("reward", "long")])
def test_a_bad_pair_is_named_or_left_out(kind, name, run, folder, tmp_path, capsys):
    row, says = BAD_PAIRS[name]
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "bad.jsonl", [*rows, row])
    given = [kind, "--model", run, "--data", tmp_path / "bad.jsonl", *FEW, "--out", tmp_path / "run"]
    said = minillm("finetune", *given, status=2, capsys=capsys)
    assert "bad.jsonl, line 13: " in said and says in said and said.count("\n") == 1, said
    assert "line 13" in minillm("finetune", *given, "--skip-bad", capsys=capsys)


REWARDS = """
def fails(answer, record):
    return 1 / 0

def nan(answer, record):
    return float("nan")
"""


@pytest.mark.parametrize("name, says", [("fails", "raised ZeroDivisionError"), ("nan", "must be a finite number")])
def test_a_bad_reward_is_named_with_the_prompt_and_the_run_can_begin_anew(name, says, run, folder, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(REWARDS)
    options = ["--reward", f"{tmp_path / 'bad.py'}:{name}"]
    said = way(folder, "grpo", tmp_path / "run", *options, status=2, capsys=capsys)
    assert "prompts.jsonl, line " in said and says in said and said.count("\n") == 1, said
    way(folder, "grpo", tmp_path / "run")


def test_a_reward_that_leaves_the_program_says_so(run, folder, tmp_path, capsys):
    (tmp_path / "leaves.py").write_text("def leaves(answer, record):\n    raise SystemExit(0)\n")
    options = ["--reward", f"{tmp_path / 'leaves.py'}:leaves"]
    said = way(folder, "grpo", tmp_path / "run", *options, status=2, capsys=capsys)
    assert "prompts.jsonl, line " in said and "'leaves' raised SystemExit: 0 (leaves.py, line 2)" in said


def test_prompts_that_are_too_long(run, folder, tmp_path, capsys):
    path = folder / "long.jsonl"
    path.write_text((folder / "prompts.jsonl").read_text() + json.dumps({"prompt": LONG}) + "\n")
    said = way(folder, "grpo", tmp_path / "run", "--data", path, status=2, capsys=capsys)
    assert "long.jsonl, line 13: the prompt and an answer of up to 6 tokens" in said
    assert "line 13" in way(folder, "grpo", tmp_path / "run", "--data", path, "--skip-bad", capsys=capsys)
    said = way(folder, "grpo", tmp_path / "r", "--skip-bad", "--set", "grpo.max_new_tokens=64", status=2, capsys=capsys)
    assert "nothing is left for train: 11 of 11 examples" in said and "(--skip-bad)" in said


def test_one_chat_is_too_few(folder, tmp_path, capsys):
    write_lines(tmp_path / "one.jsonl", [{"messages": chat("a", "b")}])
    said = sft(folder, tmp_path / "run", *FEW, "--data", tmp_path / "one.jsonl", status=2, capsys=capsys)
    assert "nothing is left for val" in said and "--val" in said


@pytest.fixture(scope="module")
def judge(run, folder):
    way(folder, "reward", folder / "judge")
    return folder / "judge"


def test_models_that_cannot_do_what_is_asked(judge, run, folder, tmp_path, capsys):
    judges = "judges texts by a number"
    for kind in ("sft", "dpo", "grpo", "distill"):
        assert judges in way(folder, kind, tmp_path / kind, model="judge", status=2, capsys=capsys), kind
    assert judges in way(folder, "distill", tmp_path / "d", "--teacher", judge, status=2, capsys=capsys)
    assert judges in minillm("chat", judge, status=2, capsys=capsys)
    said = way(folder, "grpo", tmp_path / "g", "--reward", run, status=2, capsys=capsys)
    assert "is a run of sft, no judge of answers" in said
    way(folder, "grpo", tmp_path / "judged", "--reward", judge)
    tokenizer = WordPieceTokenizer.train(["the capital of France"], 60)
    config = BertConfig(tokenizer.vocab_size, 48, 1, 2, 16, 32, head="mlm")
    save_model(folder / "bert", Bert(config, np.random.default_rng(0)), tokenizer)
    said = way(folder, "sft", tmp_path / "b", model="bert", status=2, capsys=capsys)
    assert "bert is a bert for 'mlm' and holds no conversation" in said


@pytest.mark.parametrize(
    "kind, options, says",
    [
        ("sft", ["--teacher", "x"], "[distill] is for distill"),
        ("sft", ["--loss", "ipo"], "[preference] is for reward and dpo"),
        ("reward", ["--loss", "ipo"], "is of dpo"),
        ("dpo", ["--reward", "x.py:y"], "[grpo] is for grpo"),
        ("dpo", ["--pack"], "pack = true"),
        ("dpo", ["--cut"], "--cut belongs to tasks"),
        ("sft", ["--metric", "accuracy"], "--metric accuracy is none of sft: it has loss"),
        ("grpo", ["--metric", "margin"], "is none of grpo: it has loss, reward"),
        ("sft", ["--template", "nowhere.jinja"], "which is not there"),
        ("classify", ["--teacher", "x"], "--teacher belongs to sft"),
    ],
)
def test_options_of_other_kinds_are_refused(kind, options, says, run, folder, tmp_path, capsys):
    given = ["--model", run, "--data", folder / "chats.jsonl", "--out", tmp_path / "run", *options]
    said = minillm("finetune", kind, *given, status=2, capsys=capsys)
    assert says in said and not (tmp_path / "run").exists()


def test_nothing_to_resume(tmp_path, capsys):
    said = minillm("finetune", "--resume", "--out", tmp_path / "run", status=2, capsys=capsys)
    assert "neither finetune.toml nor assistant.toml" in said


def test_other_commands_do_what_makes_sense_or_name_the_right_one(run, judge, folder, tmp_path, capsys):
    for command in (["generate", run, "--prompt", "a"], ["evaluate", run],
                    ["predict", run, "--data", folder / "pairs.jsonl", "--out", tmp_path / "o.csv"]):  # fmt: skip
        assert f"to use it: minillm chat {run}" in minillm(*command, status=2, capsys=capsys), command
    assert "--reward" in minillm("generate", judge, "--prompt", "a", status=2, capsys=capsys)
    (tmp_path / "text.txt").write_text("The capital of France, the capital of Italy.")
    assert "nats/token" in minillm("evaluate", run, "--data", tmp_path / "text.txt", capsys=capsys)
    assert "parameters" in minillm("inspect", run, capsys=capsys)
    assert "val loss" in minillm("check", run, capsys=capsys)
    rows = "".join(f"text number {i} of {i * 7},{'xy'[i % 2]}\n" for i in range(40))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    few = ["--set", "train.max_steps=2", "--set", "engine.threads=1"]
    minillm("finetune", "classify", "--model", run, "--data", tmp_path / "rows.csv", "--out", tmp_path / "cls", *few)
    given = ["--model", tmp_path / "cls", "--data", folder / "chats.jsonl", "--out", tmp_path / "r"]
    said = minillm("finetune", "sft", *given, status=2, capsys=capsys)
    assert "is a classifier for 'classification' and holds no conversation" in said


def test_a_run_remembers_what_it_was_told(folder, tmp_path, capsys):
    sft(folder, tmp_path / "run", *FEW, "--system", "Be brief.")
    assert Conversation.open(tmp_path / "run").system == "Be brief."
    said = minillm("convert", tmp_path / "run", tmp_path / "hf", capsys=capsys)
    assert "trained with the system message 'Be brief.'" in said
    said = way(folder, "dpo", tmp_path / "dpo", model=tmp_path / "run", capsys=capsys)
    assert "was trained with the system message 'Be brief.'" in said


def test_a_reward_of_nothing_is_no_minus_nothing(run, folder, tmp_path, capsys):
    (tmp_path / "none.py").write_text("def none(answer, record):\n    return 0\n")
    said = way(folder, "grpo", tmp_path / "run", "--reward", f"{tmp_path / 'none.py'}:none", capsys=capsys)
    assert "val loss 0  " in said and "loss -0  " not in said


def test_an_adapter_on_a_base_without_chat_tokens_is_merged_before_they_are_added(folder, tmp_path):
    chatty = ["--data", folder / "chats.jsonl", "--method", "lora", *FEW]
    minillm("finetune", "sft", "--model", folder / "llama", *chatty, "--out", tmp_path / "first")
    minillm("finetune", "sft", "--model", tmp_path / "first", *chatty, "--out", tmp_path / "second")
    asked, runs = question("Peru"), (tmp_path / "second", tmp_path / "whole")
    minillm("convert", *runs, "--to", "minillm")
    assert greedy(Conversation.open(runs[0]), asked) == greedy(Conversation.open(runs[1]), asked)


ENDED_BY_EOS = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_adapters_keep_the_template_that_they_learned_with(run, folder, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(ENDED_BY_EOS)
    way(folder, "sft", tmp_path / "run", "--template", file, method="lora")
    before = Conversation.open(tmp_path / "run")
    for change in (lambda: file.write_text("another"), file.unlink):
        change()
        again = Conversation.open(tmp_path / "run")
        assert again.template.source == before.template.source == ENDED_BY_EOS
        assert greedy(again, question("Peru")) == greedy(before, question("Peru"))
    minillm("convert", tmp_path / "run", tmp_path / "whole")
    assert Conversation.open(tmp_path / "whole").template.source == ENDED_BY_EOS


def test_what_is_said_to_be_typed_next_can_be_typed(folder, tmp_path, capsys):
    said = sft(folder, tmp_path / "my run", *FEW, capsys=capsys)
    (line,) = (line for line in said.splitlines() if line.startswith("to use it: "))  # as pytest was called
    assert shlex.split(line)[-2:] == ["chat", str(tmp_path / "my run")]


def test_a_gguf_file_is_no_folder_to_chat_with(run, tmp_path, capsys):
    minillm("convert", run, tmp_path / "model.gguf", "--to", "gguf")
    said = minillm("chat", tmp_path / "model.gguf", status=2, capsys=capsys)
    assert f"minillm convert {tmp_path / 'model.gguf'} FOLDER --to hf" in said


def test_a_tokenizer_that_llama_cpp_lacks_is_refused_with_the_one_that_it_has(folder, tmp_path, capsys):
    small = ["--set", "model.n_layers=1", "--set", "model.d_model=16", "--set", "model.n_heads=2", "--set"]
    given = ["--data", folder / "chats.jsonl", "--out", tmp_path / "run", *small, "model.n_kv_heads=2", *FEW]
    minillm("finetune", "sft", *given)
    said = minillm("convert", tmp_path / "run", tmp_path / "m.gguf", "--to", "gguf", status=2, capsys=capsys)
    assert "no byte-level BPE" in said and "--set start.tokenizer=bpe" in said


def test_a_new_student_reads_no_more_than_its_teacher(run, folder, tmp_path):
    given = ["--teacher", run, "--data", folder / "chats.jsonl", "--out", tmp_path / "run", *FEW]
    minillm("finetune", "distill", *given)
    assert Conversation.open(tmp_path / "run").model.config.context == 64


def test_a_run_goes_on_by_its_own_template_and_beside_its_own_weights(folder, tmp_path, capsys):
    """The file is gone by then; another model of the same shape is refused."""
    (tmp_path / "own.jinja").write_text(ENDED_BY_EOS)
    shutil.copytree(folder / "llama", tmp_path / "llama")
    given = ["--data", folder / "chats.jsonl", "--template", tmp_path / "own.jinja", "--method", "lora", *FEW]
    minillm("finetune", "sft", "--model", tmp_path / "llama", *given, "--out", tmp_path / "run")
    (tmp_path / "own.jinja").unlink()
    more = ("finetune", "--resume", "--out", tmp_path / "run", "--set", "train.max_steps=6")
    minillm(*more)
    assert Conversation.open(tmp_path / "run").template.source == ENDED_BY_EOS
    opened = open_checkpoint(tmp_path / "llama")
    model, tokenizer = opened.model(), opened.tokenizer()
    model.norm.weight.data[...] += 1
    shutil.rmtree(tmp_path / "llama")
    save_model(tmp_path / "llama", model, tokenizer)
    for arguments in (("chat", tmp_path / "run"), (*more[:-1], "train.max_steps=8")):
        assert "beside other weights" in minillm(*arguments, status=2, capsys=capsys)


def test_what_the_rewards_of_a_run_say(tmp_path):
    for values, says in (
        ([0.5], ""), ([0.5, 0.4], "did not rise"), ([0.1, 0.2, 0.9], "still rising"), ([0.1, 0.9, 0.8], "came to rest"),
    ):  # fmt: skip
        rows = [{"step": 10 * i, "val_loss": -value, "val_reward": value} for i, value in enumerate(values)]
        write_lines(tmp_path / "metrics.jsonl", rows)
        found = reward_curve(tmp_path)
        assert says in found and bool(found) == bool(says)

"""`minillm finetune`, `predict`, `ablate`, and what `evaluate` and `generate` make of their runs."""

import csv
import json
import shutil
import signal

import numpy as np
import pytest
from command_line import minillm

from minillm.finetune.config import RECIPES, build_config, read_recipe, recipe_names
from minillm.finetune.report import learning_curve
from minillm.finetune.run import fresh
from minillm.finetune.splits import Splits
from minillm.hub.checkpoint import open_checkpoint
from minillm.hub.finetuned import open_finetuned
from minillm.models import GPT, Bert, BertConfig, GPTConfig, config_to_dict
from minillm.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer
from minillm.training.checkpoint import read_checkpoint, save_checkpoint
from minillm.training.run_log import read_metrics

GOOD = ["good", "fine", "lovely", "great", "superb"]
BAD = ["bad", "poor", "awful", "dull", "weak"]
THINGS = ["soup", "hotel", "film", "plot", "guide", "room", "book", "phone", "bed", "view", "trip", "song", "team"]
PLACES = ["in Lima", "by the sea", "at noon", "for once", "in the rain", "on Monday", "up north", "at home", "again"]
FEW = ["--set", "train.max_steps=12", "--set", "train.eval_every=4", "--set", "train.save_every=4",
       "--set", "train.warmup_steps=2", "--set", "train.batch_size=8", "--set", "engine.threads=1"]  # fmt: skip
SMALL = ["--set", "model.n_layers=1", "--set", "model.n_heads=2", "--set", "model.d_model=16", "--set", "model.d_ff=32",
         "--set", "model.context=48", "--set", "start.vocab_size=300"]  # fmt: skip


def sentences(n, seed=0):
    draw = np.random.default_rng(seed)
    rows = {}
    while len(rows) < n:
        word = draw.choice(GOOD + BAD)
        thing, other, place = draw.choice(THINGS), draw.choice(THINGS), draw.choice(PLACES)
        rows[f"the {thing} and the {other} were {word} {place} {draw.integers(1000)}"] = word in GOOD
    return [(text, "positive" if good else "negative") for text, good in rows.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    with open(folder / "reviews.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "label"])
        writer.writerows([i, *row] for i, row in enumerate(sentences(120)))
    with open(folder / "pairs.tsv", "w") as stream:
        stream.writelines(f"{text}\t{' '.join(reversed(text.split()[:2]))}\n" for text, _ in sentences(80, seed=1))
    texts = [text for text, _ in sentences(300, seed=2)]
    gpt = GPTConfig(vocab_size=300, context=48, n_layers=1, n_heads=2, d_model=16)
    save_model(folder / "gpt", GPT(gpt, np.random.default_rng(0)), BPETokenizer.train(texts, 300))
    wordpiece = WordPieceTokenizer.train(texts, 200)
    bert = BertConfig(wordpiece.vocab_size, 48, 1, 2, 16, 32, pad_id=wordpiece.special_tokens["[PAD]"], head="mlm")
    save_model(folder / "bert", Bert(bert, np.random.default_rng(0)), wordpiece)
    return folder


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def save_model(folder, model, tokenizer):
    config = config_to_dict(model.config)
    save_checkpoint(folder, config=config, model=model.state_dict(), optimizer={}, state={}, tokenizer=tokenizer)


def tune(kind, out, *options, status=0, capsys=None):
    return minillm("finetune", kind, "--out", out, *FEW, *options, status=status, capsys=capsys)


@pytest.fixture(scope="module")
def run(folder):
    """A classifier of one's own data, from nothing."""
    tune("classify", folder / "run", "--data", folder / "reviews.csv", *SMALL)
    return folder / "run"


def test_what_is_printed_before_and_after_a_run(folder, tmp_path, capsys):
    said = tune("classify", tmp_path / "run", "--data", folder / "reviews.csv", *SMALL, capsys=capsys)
    read = "120 examples (text from 'text', label from 'label')"
    for part in ("examples   train 9", "classes    negative", read, "baseline   majority: accuracy test ", "trains",
                 "<- answered",
                 "bag of words", "accuracy, 95% interval", "finetune.toml, report.json"):  # fmt: skip
        assert part in said, part
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["main"] == "accuracy" and set(report["scores"]["test"]) == {"model", "majority", "bag of words"}


def test_predictions_of_every_row_with_their_probabilities(run, folder, tmp_path, capsys):
    said = minillm("predict", run, "--data", folder / "reviews.csv", "--out", tmp_path / "p.csv", capsys=capsys)
    assert "wrote" in said and "120 rows" in said
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 120 and list(rows[0]) == [
        "id", "text", "label", "prediction", "probability", "p_negative", "p_positive"
    ]  # fmt: skip
    for row in rows:
        p = {label: float(row[f"p_{label}"]) for label in ("negative", "positive")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5) and row["prediction"] == max(p, key=p.get)
    minillm("predict", run, "--data", tmp_path / "p.csv", "--out", tmp_path / "p.jsonl")
    assert json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])["prediction"] == rows[0]["prediction"]


def test_rows_that_cannot_be_answered(run, tmp_path, capsys):
    (tmp_path / "d.csv").write_text('text,id\nthe soup was good,1\n,2\n"x ' + "soup " * 90 + '",3\n')
    arguments = ("predict", run, "--data", tmp_path / "d.csv", "--out", tmp_path / "o.csv")
    assert "d.csv, line 3" in minillm(*arguments, status=2, capsys=capsys)
    assert not (tmp_path / "o.csv").exists()
    minillm(*arguments, "--skip-bad")
    rows = rows_of(tmp_path / "o.csv")
    assert [bool(row["prediction"]) for row in rows] == [True, False, False]
    assert "the ending says what to write" in minillm(*arguments[:-1], tmp_path / "o.xls", status=2, capsys=capsys)


def test_a_text_with_line_breaks_comes_back_from_a_tsv_as_one_record(run, tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "the soup\nwas\tgood", "id": 7}) + "\n")
    minillm("predict", run, "--data", tmp_path / "d.jsonl", "--out", tmp_path / "p.tsv")
    header, row = (line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines())
    assert dict(zip(header, row))["text"] == "the soup was good" and len(row) == len(header) == 6


def test_a_report_of_ones_own_is_not_written_over(folder, tmp_path, capsys):
    (tmp_path / "report.json").write_text("mine")
    said = tune("classify", tmp_path, "--data", folder / "reviews.csv", *SMALL, status=2, capsys=capsys)
    assert "report.json" in said and (tmp_path / "report.json").read_text() == "mine"


def test_the_best_weights_are_kept_and_measured(run):
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "val_accuracy" in row]
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["step"]))
    assert read_checkpoint(run / "best").state["run"]["best_step"] == best["step"]
    model, objective, _ = open_finetuned(run)
    for name, array in read_checkpoint(run / "best").model.items():
        np.testing.assert_array_equal(dict(model.named_parameters())[name].data, array)
    assert objective.labels == ("negative", "positive") == model.config.labels


def test_labels_survive_on_the_way_to_transformers_and_back(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    tune("classify", tmp_path / "run", "--model", folder / "bert", "--data", folder / "reviews.csv", "--epochs", "1")
    minillm("convert", tmp_path / "run", tmp_path / "hf", "--to", "hf")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf")
    assert theirs.config.id2label == {0: "negative", 1: "positive"}
    back = open_checkpoint(tmp_path / "hf")
    assert back.config.labels == ("negative", "positive")
    ids = np.array([[2, 9, 7, 3]])
    import torch

    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(back.model()(ids).data, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["head", "lora", "full"])
@pytest.mark.parametrize("start", ["gpt", "bert"])
def test_methods_on_pretrained_models(folder, tmp_path, start, method, capsys):
    """What is frozen does not change by one bit, has no state, and the run is read again on both engines."""
    out = tmp_path / "run"
    data = ["--data", folder / "reviews.csv", "--model", folder / start, "--set", "task.epochs=0"]
    said = tune("classify", out, *data, "--method", method, capsys=capsys)
    base = open_checkpoint(folder / start).model().state_dict()
    point = read_checkpoint(out / "last")
    inside = {name.removeprefix("decoder."): array for name, array in point.model.items()}
    body = [name for name in base if name in inside and not name.startswith(("pooler", "mlm"))]
    changed = [name for name in body if not np.array_equal(inside[name], base[name])]
    if method == "full":
        assert len(changed) == len(body) > 5 and "(100.00%)" in said
    else:
        assert not changed and "(100.00%)" not in said
        learned = {name.rpartition(".")[0] for name in point.optimizer}
        assert learned and not learned & {name for name in point.model if name.removeprefix("decoder.") in body}
    answers = []
    for engine in ("numpy", "torch"):
        options = ("--data", folder / "reviews.csv", "--out", tmp_path / f"{engine}.csv", "--engine", engine)
        minillm("predict", out, *options)
        answers.append([float(row["p_positive"]) for row in rows_of(tmp_path / f"{engine}.csv")])
    np.testing.assert_allclose(*answers, atol=2e-5)
    assert minillm("evaluate", out, "--json", tmp_path / "s.json", capsys=capsys).count("accuracy") >= 1
    report, again = (json.loads(path.read_text()) for path in (out / "report.json", tmp_path / "s.json"))
    assert again["scores"] == report["scores"]


def test_qlora_saves_its_adapter_alone_and_is_read_again(folder, tmp_path, capsys):
    pytest.importorskip("torch")
    out = tmp_path / "run"
    data = ["--data", folder / "reviews.csv", "--model", folder / "gpt", "--set", "task.epochs=0"]
    tune("classify", out, *data, "--method", "qlora", "--engine", "torch", "--set", "engine.device=cpu")
    names = set(read_checkpoint(out / "best").model)
    assert names and all("lora_" in name or name.startswith("score") for name in names)
    arguments = ("predict", out, "--data", folder / "reviews.csv", "--out", tmp_path / "p.csv")
    assert "give --engine torch" in minillm(*arguments, status=2, capsys=capsys)
    minillm(*arguments, "--engine", "torch")
    said = minillm("convert", out, tmp_path / "whole", status=2, capsys=capsys)
    assert "weights rounded to few bits, which are not written. Use the run as it is, with --engine torch" in said
    assert "qlora's 4-bit weights are PyTorch's" in tune(
        "classify", tmp_path / "n", *data, "--method", "qlora", status=2, capsys=capsys
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_decoder_answers_and_its_run_is_generated_from(folder, tmp_path, method, capsys):
    out = tmp_path / "run"
    data = ["--data", folder / "pairs.tsv", "--model", folder / "gpt", "--method", method, "--set", "task.epochs=0"]
    said = tune("translate", out, *data, capsys=capsys)
    assert "no header, so the first column is the source" in said and "nearest example" in said and "bleu" in said
    answers = [
        minillm("generate", out, "--prompt", "the soup and", "--engine", engine, capsys=capsys)
        for engine in ("numpy", "torch")
    ]
    assert answers[0] == answers[1]
    minillm("generate", out, "--prompt", "the soup", "--beams", "2")
    minillm("generate", out, "--prompt", "the soup", "--seed", "1", "--max-new-tokens", "3")
    capsys.readouterr()
    longer = ["generate", out, "--prompt", "the soup", "--min-new-tokens", "4"]
    whole = minillm(*longer, capsys=capsys)
    assert minillm(*longer, "--stop", whole[1:3], capsys=capsys) == whole[: whole.index(whole[1:3])] + "\n"
    if method == "lora":
        adapted = open_checkpoint(out / "adapter").model()
        ids = np.arange(5)[None]
        model, _, _ = open_finetuned(out)
        np.testing.assert_allclose(adapted(ids).data, model(ids).data, atol=1e-6)


def test_a_target_with_unknown_characters_is_named_by_its_line(folder, tmp_path, capsys):
    tokenizer = CharTokenizer.train(["abcdefghijklmnopqrstuvwxyz0123456789 "])
    gpt = GPTConfig(vocab_size=tokenizer.vocab_size, context=90, n_layers=1, n_heads=2, d_model=16)
    save_model(tmp_path / "gpt", GPT(gpt, np.random.default_rng(0)), tokenizer)
    lines = [f"{text}\t{'é' if i == 3 else 'a'}{i}" for i, (text, _) in enumerate(sentences(40))]
    (tmp_path / "d.tsv").write_text("\n".join(lines), encoding="utf-8")
    options = ["--data", tmp_path / "d.tsv", "--test", folder / "pairs.tsv", "--model", tmp_path / "gpt"]
    said = tune("translate", tmp_path / "run", *options, "--set", "task.seed=1", status=2, capsys=capsys)
    assert "d.tsv, line 4: character 'é'" in said and said.count("line 4") == 1, said


def test_an_encoder_decoder_from_nothing(folder, tmp_path, capsys):
    out = tmp_path / "run"
    tune("translate", out, "--data", folder / "pairs.tsv", *SMALL, capsys=capsys)
    assert minillm("generate", out, "--prompt", "the soup and", capsys=capsys).endswith("\n")
    minillm("predict", out, "--data", folder / "reviews.csv", "--out", tmp_path / "p.jsonl")
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 120


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_was_interrupted_goes_on_to_the_last_bit(folder, tmp_path, method, monkeypatch, capsys):
    from minillm.training import train as loop

    options = ["--data", folder / "reviews.csv", "--model", folder / "gpt", "--method", method,
               "--set", "task.epochs=0", "--set", "task.drop_words=0.2"]  # fmt: skip
    tune("classify", tmp_path / "whole", *options)

    class StopAfterFive(loop.StopRequest):
        calls = 0

        @property
        def requested(self):
            self.calls += 1
            self.signal = signal.SIGINT if self.calls >= 5 else None
            return float(self.signal is not None)

    monkeypatch.setattr(loop, "StopRequest", StopAfterFive)
    tune("classify", tmp_path / "cut", *options, status=128 + signal.SIGINT)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "report.json").exists()
    minillm("finetune", "--resume", "--out", tmp_path / "cut")
    whole, cut = (read_checkpoint(tmp_path / name / "last") for name in ("whole", "cut"))
    assert whole.state["run"]["step"] == cut.state["run"]["step"] == 12
    for name, array in whole.model.items():
        np.testing.assert_array_equal(cut.model[name], array, err_msg=name)
    reports = [json.loads((tmp_path / name / "report.json").read_text())["scores"] for name in ("whole", "cut")]
    assert reports[0] == reports[1]
    assert "already holds a run" in tune("classify", tmp_path / "cut", *options, status=2, capsys=capsys)


def test_gradual_unfreezing_and_rates_by_layer(folder, tmp_path):
    out = tmp_path / "run"
    tune("classify", out, "--data", folder / "reviews.csv", "--model", folder / "gpt", "--set", "task.epochs=0",
         "--set", "method.unfreeze_every=50", "--set", "method.layer_decay=0.5")  # fmt: skip
    base, point = open_checkpoint(folder / "gpt").model().state_dict(), read_checkpoint(out / "last")
    for name, array in base.items():
        if name.startswith(("token_embedding", "blocks")):  # 12 steps are fewer than 50: the head alone has learned
            np.testing.assert_array_equal(point.model[f"decoder.{name}"], array)
    assert any(name.startswith("score") for name in point.optimizer)


def test_back_translation_adds_what_comes_back_in_other_words(folder, tmp_path, capsys):
    """Two runs that hardly learned: what comes back is nonsense, but other words; protected words are kept."""
    for name in ("there", "back"):
        tune("translate", tmp_path / name, "--data", folder / "pairs.tsv", *SMALL)
    runs = f"task.back_translate={tmp_path / 'there'},{tmp_path / 'back'}"
    said = tune("classify", tmp_path / "run", "--data", folder / "reviews.csv", *SMALL, "--set", runs, capsys=capsys)
    added = int(said.split(" training texts came back")[0].rpartition("note")[2].split()[0])
    assert f"train {96 + added}," in said and f"{added} of 96 training texts" in said
    wrong = ("--set", "task.back_translate=one")
    said = tune("classify", tmp_path / "r2", "--data", folder / "reviews.csv", *wrong, status=2, capsys=capsys)
    assert "must be two runs" in said


BROKEN = {
    "data.jsonl": ('{"text": "a", "label": "x"}\n' * 6 + '{"text": "b", "label"\n', "data.jsonl, line 7"),
    "gone.csv": (None, "there is no file"),
    "empty.csv": ("text,label\n", "holds no example"),
    "hole.csv": ("text,label\nfine soup,good\n,bad\n", "hole.csv, line 3: 'text'"),
    "columns.csv": ("words,kind\nfine soup,good\n", "which column is the text? "),
    "one.csv": ("text,label\n" + "".join(f"text number {i},same\n" for i in range(40)), "a classifier needs two"),
    "long.csv": ("text,label\n" + "".join(f"{'soup ' * (5 + 60 * (i == 4))}{i},{'xy'[i % 2]}\n" for i in range(40)),
                 "line 6: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_bad_data_is_named_with_file_line_and_remedy(tmp_path, name, capsys):
    content, says = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    said = tune("classify", tmp_path / "run", "--data", tmp_path / name, *SMALL, status=2, capsys=capsys)
    assert says in said and said.startswith("minillm: ") and said.count("\n") == 1, said
    assert said.count(name) <= 1 or name != "long.csv", said  # the place once
    assert not (tmp_path / "run" / "best").exists()


def test_a_class_that_training_never_sees_is_named_before_it(folder, tmp_path, capsys):
    (tmp_path / "test.csv").write_text("text,label\nquite another text,mixed\n")
    data = ["--data", folder / "reviews.csv", "--test", tmp_path / "test.csv"]
    said = tune("classify", tmp_path / "run", *data, *SMALL, status=2, capsys=capsys)
    assert "mixed" in said and "test.csv, line 2" in said and not (tmp_path / "run").exists()


def test_skip_bad_counts_what_it_leaves_out(folder, tmp_path, capsys):
    text = (folder / "reviews.csv").read_text() + '900,,positive\n901,"' + "soup " * 90 + '",negative\n'
    (tmp_path / "d.csv").write_text(text)
    said = tune("classify", tmp_path / "run", "--data", tmp_path / "d.csv", "--skip-bad", *SMALL, capsys=capsys)
    assert "1 skipped: 1 empty text (line 122)" in said
    assert "left out" in said and "line 123" in said


WRONG = [
    (["classify", "--config", "classifi"], "Did you mean 'classify'?"),
    (["classify", "--method", "lora"], "changes a pretrained model"),
    (["translate", "--model", "BERT"], "needs a model that writes"),
    (["translate", "--model", "GPT", "--method", "head"], "head trains a classifier's new head"),
    (["classify", "--set", "task.limt=3"], "Did you mean 'limit'?"),
    (["classify", "--metric", "f1"], "--metric f1 is none of this task's: they are loss, accuracy, "),
    (["classify", "--epochs", "nan"], "--epochs nan must be 0 or more"),
    (["classify", "--source", "text"], "--source text has no meaning for classify"),
    (["translate", "--label", "text"], "--label text has no meaning for translate"),
    (["regress"], "there is no built-in task for 'regress'"),
    (["classify", "--val", "x.csv"], "--val and --test go with --data"),
    (["translate", "--model", "GPT", "--method", "lora", "--set", "method.rank=0"], "minillm: rank = 0 must be"),
    (["translate", "--model", "GPT", "--method", "lora", "--set", "method.targets=a"], "minillm: the target 'a' names"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_what_cannot_be_is_said_in_one_line(folder, tmp_path, arguments, says, capsys):
    named = {"BERT": folder / "bert", "GPT": folder / "gpt"}
    arguments = [named.get(argument, argument) for argument in arguments]
    if "--model" in arguments or "--metric" in arguments:
        arguments += ["--data", folder / ("pairs.tsv" if "translate" in arguments else "reviews.csv")]
    said = tune(*arguments[:1], tmp_path / "run", *arguments[1:], status=2, capsys=capsys)
    assert says in said and said.count("\n") == 1, said


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_read_and_makes_a_model(name):
    from minillm.data import Labelled, Pair

    config = build_config(read_recipe(name))
    classes = config.task.kind in ("classify", "regress")
    labelled = [Labelled("a good text", "x"), Labelled("a bad one", "y")]
    pairs = [Pair("a text", "文本"), Pair("b", "c")]
    rows = labelled if classes else pairs
    if not name.endswith("-pretrained"):
        start = fresh(config, Splits({"train": rows, "val": rows}, "code"))
        assert start.tokenizer.encode("a") and start.model.config.context >= 128
    assert config.task.kind == name.removesuffix("-pretrained") and (RECIPES / f"{name}.toml").exists()


def test_each_cure_alone_and_all_together(folder, tmp_path, capsys):
    data = ["--data", folder / "reviews.csv", "--out", tmp_path / "a", "--seeds", "1"]
    said = minillm("ablate", "classify", *data, *FEW, *SMALL, "--set", "train.max_steps=4", capsys=capsys)
    last = said[said.rindex("accuracy, mean") :]
    assert said.count("one of 7 runs") == 7
    assert all(name in last for name in ("nothing", "dropout 0.2", "early stopping", "augmentation", "all of them"))


def test_ablation_compares_settings_and_goes_on_where_it_was(folder, tmp_path, capsys):
    arguments = ["ablate", "classify", "--data", folder / "reviews.csv", "--out", tmp_path / "a", *FEW, *SMALL,
                 "--vary", "train.lr=1e-3,1e-5", "--seeds", "2"]  # fmt: skip
    said = minillm(*arguments, capsys=capsys)
    assert said.count("one of 4 runs") == 4 and "(bag of words)" in said and "±" in said
    again = minillm(*arguments, capsys=capsys)
    assert "one of 4 runs" not in again and again.splitlines()[-6:] == said.splitlines()[-6:]


def test_what_a_run_kept_is_what_is_used(folder, tmp_path):
    """With keep = "last", predict and evaluate take the last weights, as the report did, not the best."""
    out = tmp_path / "run"
    data = ["--data", folder / "reviews.csv", *SMALL, "--metric", "accuracy", "--set", "train.lr=3e-3"]
    tune("classify", out, *data, "--set", "task.keep=last")
    minillm("evaluate", out, "--json", tmp_path / "s.json")
    report, again = (json.loads(path.read_text()) for path in (out / "report.json", tmp_path / "s.json"))
    best, last = (read_checkpoint(out / name).state["run"]["step"] for name in ("best", "last"))
    assert best < last and again["scores"] == report["scores"]


def test_a_run_is_not_measured_on_what_it_may_have_learned(folder, tmp_path, capsys):
    """Another file gives another split, in which training examples may be tests."""
    (tmp_path / "d.csv").write_text((folder / "reviews.csv").read_text())
    tune("classify", tmp_path / "run", "--data", tmp_path / "d.csv", *SMALL)
    with open(tmp_path / "d.csv", "a") as stream:
        stream.writelines(f"{i},one more text with number {i},positive\n" for i in range(40))
    assert "trained on other examples" in minillm("evaluate", tmp_path / "run", status=2, capsys=capsys)


def test_skipped_examples_are_skipped_in_the_evaluation_too(folder, tmp_path, capsys):
    long = f'900,"{"soup " * 90}",negative\n'
    for name in ("d", "test"):
        (tmp_path / f"{name}.csv").write_text("id,text,label\n901,a good one,positive\n902,a bad one,negative\n" + long)
    out, data = tmp_path / "run", ["--data", folder / "reviews.csv", "--test", tmp_path / "test.csv"]
    tune("classify", out, *data, "--skip-bad", *SMALL)
    assert "test (2 examples)" in minillm("evaluate", out, capsys=capsys)
    assert "d.csv (2 examples)" in minillm("evaluate", out, "--data", tmp_path / "d.csv", capsys=capsys)


def test_an_empty_text_and_several_labels_on_the_command_line(folder, tmp_path, capsys):
    out = tmp_path / "run"
    rows = [f'"{text}","{label},{"in" if " in " in text else "out"}"' for text, label in sentences(80)]
    (tmp_path / "d.csv").write_text("\n".join(["text,tags", *rows]) + "\n")
    tune("classify", out, "--data", tmp_path / "d.csv", "--multi-label", "--model", folder / "gpt", "--epochs", "1")
    said = minillm("generate", out, "--prompt", "", status=2, capsys=capsys)
    assert "--prompt: the text has no token" in said and said.count("\n") == 1
    for options, named in {
        ("--temperature", "0.5", "--top-k", "3"): "--temperature, --top-k",
        ("--beams", "2", "--stop", "x", "--samples", "2", "--seed", "0"): "--beams, --samples, --seed, --stop",
    }.items():
        said = minillm("generate", out, "--prompt", "the soup", *options, status=2, capsys=capsys)
        assert f"labels a text, it writes and draws nothing: leave out {named}." in said
    answer = minillm("generate", out, "--prompt", "the soup", capsys=capsys).strip()
    assert set(answer.split(", ")) <= {"negative", "positive", "in", "out", ""} and "(" not in answer
    assert "--samples 0 must be" in minillm("generate", out, "--samples", "0", status=2, capsys=capsys)


def test_predictions_do_not_overwrite_what_they_are_read_from(run, folder, capsys):
    data = folder / "reviews.csv"
    before = data.read_bytes()
    said = minillm("predict", run, "--data", data, "--out", data, status=2, capsys=capsys)
    assert "is the file to read" in said and data.read_bytes() == before


def test_what_is_asked_in_predict_is_what_was_asked_in_training(folder, tmp_path, monkeypatch, capsys):
    """Alpaca's input stands behind the instruction, and a .tsv without a header has none in predict either."""
    from minillm.commands import predict as command

    asked = []

    def noted(*arguments):
        found = readable(*arguments)
        asked.append([example.source for example in found[0].values()])
        return found

    readable = command.readable
    rows = [{"instruction": "Say it again.", "input": text, "output": text[:9]} for text, _ in sentences(60)]
    rows[3].pop("input")
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tune("translate", tmp_path / "run", "--data", tmp_path / "d.jsonl", *SMALL, "--set", "model.context=90")
    monkeypatch.setattr(command, "readable", noted)
    arguments = ("predict", tmp_path / "run", "--out", tmp_path / "p.csv", "--data")
    said = minillm(*arguments, tmp_path / "d.jsonl", capsys=capsys)
    assert "the columns 'instruction' and 'input'" in said
    assert asked[0][:1] == ["Say it again.\n\n" + rows[0]["input"]] and asked[0][3] == "Say it again."
    minillm(*arguments, folder / "pairs.tsv")
    first = (folder / "pairs.tsv").read_text().splitlines()[0].split("\t")
    assert len(asked[1]) == 80 and asked[1][0] == first[0]
    assert list(rows_of(tmp_path / "p.csv")[0].values())[:2] == first


def test_prices_are_learned_as_well_as_stars(folder, tmp_path, capsys):
    """Numbers far from 0 are scaled for the model, and given back in their own units; a run as a start keeps its."""
    rows = [f'"{text}",{300_000 + 1000 * i}' for i, (text, _) in enumerate(sentences(80))]
    (tmp_path / "prices.csv").write_text("\n".join(["text,value", *rows]) + "\n")
    first, second = tmp_path / "first", tmp_path / "second"
    tune("regress", first, "--data", tmp_path / "prices.csv", *SMALL)
    scores = json.loads((first / "report.json").read_text())["scores"]["test"]
    assert scores["model"]["mse"] < 1.5 * scores["the mean"]["mse"]
    minillm("predict", first, "--data", tmp_path / "prices.csv", "--out", tmp_path / "p.csv")
    assert all(250_000 < float(row["prediction"]) < 450_000 for row in rows_of(tmp_path / "p.csv"))
    data = tmp_path / "prices.csv"
    tune("regress", second, "--data", data, "--model", first, "--epochs", "1", "--set", "task.seed=5")
    (_, kept, _), (_, again, _) = open_finetuned(first), open_finetuned(second)
    assert (kept.center, kept.scale) == (again.center, again.scale) and 20_000 < kept.scale < 25_000


def test_a_run_with_adapters_is_begun_with_and_converted(folder, tmp_path, capsys):
    """It holds its adapters alone: whatever needs the whole model has them merged, or says what to do."""
    out = tmp_path / "run"
    pairs = ["--data", folder / "pairs.tsv", "--epochs", "1", "--set", "train.lr=1e-2"]
    tune("translate", out, *pairs, "--model", folder / "gpt", "--method", "lora")
    model, _, _ = open_finetuned(out)
    ids = np.arange(9)[None]
    expected = model(ids).data
    minillm("convert", out, tmp_path / "own", "--to", "minillm")
    np.testing.assert_allclose(open_checkpoint(tmp_path / "own").model()(ids).data, expected, atol=1e-6)
    said = minillm("inspect", out, status=2, capsys=capsys)
    assert "adapters of a run alone" in said and f"minillm convert {out} FOLDER" in said and said.count("\n") == 1
    for number, (start, method) in enumerate([(out, "full"), (out, "lora"), (out / "adapter", "lora")]):
        again = tmp_path / f"again{number}"
        said = tune("translate", again, *pairs, "--model", start, "--method", method, capsys=capsys)
        assert ("(100.00%)" in said) == (method == "full") and not (again / "adapter").exists()
        minillm("generate", again, "--prompt", "the soup")
    answers = tmp_path / "answers"
    data = ["--data", folder / "reviews.csv", "--epochs", "1"]
    tune("classify", answers, *data, "--model", folder / "gpt", "--method", "lora")
    minillm("convert", answers, tmp_path / "hf", "--to", "hf")
    assert open_checkpoint(tmp_path / "hf").config.labels == ("negative", "positive")


def test_what_a_converted_model_of_numbers_gives_is_said(folder, tmp_path, capsys):
    rows = [f'"{text}",{300_000 + 1000 * i}' for i, (text, _) in enumerate(sentences(60))]
    (tmp_path / "prices.csv").write_text("\n".join(["text,value", *rows]) + "\n")
    tune("regress", tmp_path / "run", "--data", tmp_path / "prices.csv", *SMALL)
    said = minillm("convert", tmp_path / "run", tmp_path / "hf", "--to", "hf", capsys=capsys)
    assert "note: what is written gives (number - 3" in said and "wrote" in said


def test_ablation_does_not_show_runs_of_other_settings(folder, tmp_path, capsys):
    arguments = ["ablate", "classify", "--out", tmp_path / "a", *FEW, *SMALL, "--vary", "nothing", "--seeds", "1"]
    minillm(*arguments, "--data", folder / "reviews.csv")
    minillm(*arguments, "--data", folder / "reviews.csv")
    (tmp_path / "other.csv").write_text((folder / "reviews.csv").read_text())
    said = minillm(*arguments, "--data", tmp_path / "other.csv", status=2, capsys=capsys)
    assert "was run with task.data = " in said and "give another --out" in said
    said = minillm(*arguments, "--data", folder / "reviews.csv", "--set", "train.lr=0.5", status=2, capsys=capsys)
    assert "train.lr = 0.001, not 0.5" in said


def test_one_number_alone_is_measured_without_its_r2(folder, tmp_path, capsys):
    (tmp_path / "d.csv").write_text("text,value\n" + "".join(f'"{text}",5\n' for text, _ in sentences(60)))
    arguments = ["regress", "--data", tmp_path / "d.csv", "--out", tmp_path / "a", *FEW, *SMALL]
    said = minillm("ablate", *arguments, "--vary", "nothing", "--seeds", "1", capsys=capsys)
    assert "mse, mean ± standard deviation" in said


def test_steps_that_are_asked_for_go_before_a_recipe_of_epochs(folder, tmp_path):
    tune("classify", tmp_path / "run", "--data", folder / "reviews.csv", "--model", folder / "gpt")
    assert read_checkpoint(tmp_path / "run" / "last").state["run"]["step"] == 12


def test_what_a_learning_curve_says(tmp_path):
    curves = {
        "still learning": ([5.0, 4.0, 3.0, 2.0], [4.0, 3.0]),
        "hardly learned": ([1.00, 1.02, 0.98, 1.01], [1.0, 0.999]),
        "overfits": ([1.0, 0.7, 0.4, 0.1], [0.8, 0.9]),
        "neither": ([1.0, 0.7, 0.5, 0.5], [0.501, 0.5]),
    }
    for says, (losses, values) in curves.items():
        rows = [{"step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
        rows += [{"step": 2 * i + 2, "val_loss": loss} for i, loss in enumerate(values)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert says in learning_curve(tmp_path), (says, learning_curve(tmp_path))


def test_measuring_on_training_examples_is_said(run, folder, capsys):
    said = minillm("evaluate", run, "--data", folder / "reviews.csv", capsys=capsys)
    assert "stand in the run's training examples, too" in said


def test_adapters_whose_model_has_moved_say_where_it_was(folder, tmp_path, capsys):
    (folder / "gpt").rename(tmp_path / "gpt")
    try:
        data = ["--data", folder / "reviews.csv", "--epochs", "1"]
        tune("classify", tmp_path / "run", *data, "--model", tmp_path / "gpt", "--method", "lora")
    finally:
        (tmp_path / "gpt").rename(folder / "gpt")
    said = minillm("generate", tmp_path / "run", "--prompt", "a", status=2, capsys=capsys)
    assert "the model that they change is not where it was" in said and "finetune.toml, [start]" in said


def test_adapters_refuse_other_weights_in_the_place_of_those_they_learned_beside(folder, tmp_path, capsys):
    out, data = tmp_path / "run", ["--data", folder / "reviews.csv", "--set", "task.epochs=0"]
    shutil.copytree(folder / "gpt", tmp_path / "gpt")
    tune("classify", out, *data, "--model", tmp_path / "gpt", "--method", "lora")
    ask = ("predict", out, "--data", folder / "reviews.csv", "--out", tmp_path / "p.csv")
    minillm(*ask)
    opened = open_checkpoint(folder / "gpt")
    model = opened.model()
    model.blocks[0].mlp.fc.weight.data[...] *= -1  # of the same shape
    weights = {"model": model.state_dict(), "optimizer": {}}
    shutil.rmtree(tmp_path / "gpt")
    values = config_to_dict(model.config)
    save_checkpoint(tmp_path / "gpt", config=values, **weights, state={}, tokenizer=opened.tokenizer())
    more = ("finetune", "--resume", "--out", out, "--set", "train.max_steps=99")
    for arguments in (ask, more, ("convert", out, tmp_path / "whole")):
        said = minillm(*arguments, status=2, capsys=capsys)
        assert f"{out}: its adapters were trained beside other weights than {tmp_path / 'gpt'} has now" in said
    shutil.copytree(folder / "gpt", tmp_path / "kept")
    toml = out / "finetune.toml"
    toml.write_text(toml.read_text().replace(str(tmp_path / "gpt"), str(tmp_path / "kept")))
    minillm(*ask)  # the same weights elsewhere


def test_a_run_that_goes_on_in_other_batches_says_so(folder, tmp_path, capsys):
    out = tmp_path / "run"
    tune("classify", out, "--data", folder / "reviews.csv", "--set", "task.epochs=0")
    more = ["--set", "train.max_steps=99", "--set", "train.batch_size=5"]
    said = minillm("finetune", "--resume", "--out", out, *more, status=2, capsys=capsys)
    assert "and now would in batches of 5. Resume with the batch size" in said and "bucketed" not in said


def test_ablation_goes_on_with_adapters_and_refuses_before_it_begins(folder, tmp_path, capsys):
    given = ["ablate", "classify", "--data", folder / "reviews.csv", "--out", tmp_path / "a", "--seeds", "1", "--model"]
    given += [folder / "gpt", "--method", "lora", "--set", "train.max_steps=2", "--set", "train.eval_every=2"]
    said = minillm(*given, "--vary", "task.drop_words=0.1,2", status=2, capsys=capsys)
    assert "drop_words must be at least 0 and below 1" in said and not (tmp_path / "a").exists()
    for _ in range(2):  # the second time it has ended already
        assert "mean ± standard deviation" in minillm(*given, "--vary", "task.drop_words=0.1", capsys=capsys)

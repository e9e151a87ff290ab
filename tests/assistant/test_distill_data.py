"""Answers that a model writes to learn from: they are the model's own, end where it ends, follow from weights, seed and
example alone; a stopped run writes them again; the teacher's take the place of the examples'."""

import functools

import numpy as np
import pytest

from minillm.assistant import distill_data
from minillm.assistant.answers import answer_of
from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.distill import DistillConfig, DistillLoss
from minillm.assistant.distill_data import OnPolicyData, write_chats
from minillm.assistant.rows import Conversations
from minillm.assistant.vocabulary import with_chat_tokens
from minillm.data import Chat
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.engines.torch_engine import TorchEngine
from minillm.finetune.objectives import Misfit
from minillm.generate import Sampling, generate, known_ids
from minillm.models import GPT, GPTConfig
from minillm.settings import IGNORE, EngineConfig, TrainConfig
from minillm.tokenizers import CharTokenizer
from minillm.training.train import train

CONTEXT = 96
TRAIN = TrainConfig(max_steps=4, batch_size=4, lr=3e-3, seed=5, eval_every=2, save_every=2, schedule="constant")


def chat(*turns, where=""):
    roles = ("user", "assistant")
    return Chat(tuple({"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)), where)


CHATS = [chat(f"say {a}", f"{a}{a}") for a in "abcdefgh"] + [chat("say a", "aa", f"and {a}?", a) for a in "bcd"]


@functools.cache
def vocabulary():
    texts = ["user assistant\n", *(m["content"] for c in CHATS for m in c.messages)]
    return CharTokenizer.train(texts)


def new(seed=0, context=CONTEXT, spread=4.0, padding=0):
    """(a model whose distributions are far from uniform, its template)."""
    tokenizer = vocabulary()
    config = GPTConfig(vocab_size=tokenizer.vocab_size + padding, context=context, n_layers=1, n_heads=2, d_model=16)
    model, tokenizer = with_chat_tokens(GPT(config, np.random.default_rng(seed)), tokenizer)
    model.to(np.float64)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= spread
    return model, ChatTemplate.chatml(tokenizer)


def engine_of(model, loss=None, config=TRAIN):
    return NumpyEngine(model, config, loss=loss or DistillLoss(new(9)[0], DistillConfig()))


def policy(template, context=CONTEXT, **options):
    options = {"max_new_tokens": 20, **options}
    objective = Conversations(template, context)
    return OnPolicyData(objective, CHATS, CHATS[:3], DistillConfig(method="on-policy", **options))


# --- what the student writes ------------------------------------------------------------------------------------------


def test_a_batch_holds_the_students_answers_behind_the_prompts():
    model, template = new(padding=5)
    data = policy(template)
    batches = data.batches(engine_of(model), TRAIN, CONTEXT)
    assert not batches.ahead
    prompts = {tuple(template.prompt(c.messages[:-1])) for c in CHATS}
    n_stopped = 0
    for _ in range(6):
        ids, targets = batches.next()
        for row, wanted in zip(ids, targets):
            answer = wanted[wanted != IGNORE].tolist()
            first = int(np.flatnonzero(wanted != IGNORE)[0])
            whole = [*row[: first + 1].tolist(), *answer]
            assert tuple(whole[: first + 1]) in prompts
            assert row[: first + len(answer)].tolist() == whole[:-1]  # targets are what follows
            assert 1 <= len(answer) <= 20
            assert not set(answer[:-1]) & set(template.stop_ids)
            assert max(answer) < template.tokenizer.vocab_size  # none of the model's padding
            n_stopped += answer[-1] in template.stop_ids
        gauges = data.gauges()
        assert gauges["on_policy"] == 1 and gauges["answer_tokens"] == (targets != IGNORE).sum() / 4
    assert 0 < n_stopped < 24


def test_an_answer_follows_from_the_weights_the_seed_and_the_example():
    """Not from the batch: two processes write what one does, each its rows. Another epoch, seed or model: others."""
    model, template = new()

    def rows(model=model, config=TRAIN, rank=0, world_size=1, steps=1):
        run = engine_of(model)
        run.rank, run.world_size = rank, world_size
        batches = policy(template).batches(run, config, CONTEXT)
        made = [batches.next() for _ in range(steps)]
        return [tuple(wanted[wanted != IGNORE].tolist()) for _, targets in made for wanted in targets]

    def config(**changes):
        return TrainConfig(**{**vars(TRAIN), **changes})

    whole = rows(steps=3)
    assert rows(steps=3) == whole
    # the buckets are of one size of global batch: 4 rows, of one process or of two
    halves = [rows(config=config(batch_size=2), rank=rank, world_size=2, steps=3) for rank in (0, 1)]
    assert [row for pair in zip(*(zip(h[::2], h[1::2]) for h in halves)) for part in pair for row in part] == whole
    assert rows(model=new(1)[0], steps=3) != whole
    other = rows(config=config(seed=6), steps=3)
    assert set(other[: len(CHATS)]) != set(whole[: len(CHATS)])  # the same chats, in another order
    later = rows(steps=9)  # 11 chats: the third epoch
    assert len(set(later)) > 22


def test_greedy_answers_are_generates():
    model, template = new()
    data = policy(template, sampling_temperature=0.0)
    _, targets = data.batches(engine_of(model), TRAIN, CONTEXT).next()
    options = {"stop_ids": template.stop_ids, "keep_stop_id": True, "allowed": known_ids(template.tokenizer)}
    greedy = Sampling(temperature=0)
    expected = {
        tuple(generate(model, [prompt], max_new_tokens=20, sampling=greedy, **options)[0]) for prompt in data.prompts
    }
    assert {tuple(wanted[wanted != IGNORE].tolist()) for wanted in targets} <= expected


def test_an_answer_ends_with_the_context():
    longest = max(len(new()[1].encode(c.messages)[0]) for c in CHATS) - 1
    model, template = new(context=longest)
    data = policy(template, longest, max_new_tokens=1000)
    data.check(model.config, template.tokenizer)
    batches = data.batches(engine_of(model), TRAIN, longest)
    for _ in range(3):
        ids, targets = batches.next()
        assert ids.shape == targets.shape and ids.shape[1] <= longest
        assert ((targets != IGNORE).sum(1) >= 1).all()


def test_the_share_of_batches_that_the_student_writes():
    model, template = new()
    none, half = policy(template, on_policy_share=0.0), policy(template, on_policy_share=0.5, max_new_tokens=1)
    batches = none.batches(engine_of(model), TRAIN, CONTEXT)
    own = {tuple(row[1][row[1] != IGNORE].tolist()) for row in none.rows}
    said = [c.messages[-1]["content"] for c in CHATS]
    assert own == {(*template.tokenizer.encode(text), template.end_of_turn) for text in said}
    for _ in range(5):
        _, targets = batches.next()
        assert {tuple(wanted[wanted != IGNORE].tolist()) for wanted in targets} <= own
        assert none.gauges()["on_policy"] == 0
    batches, drawn = half.batches(engine_of(model), TRAIN, CONTEXT), []
    for _ in range(100):
        batches.next()
        drawn.append(half.gauges()["on_policy"])
    assert 30 < sum(drawn) < 70


def test_what_does_not_fit_is_named():
    _, template = new()
    with pytest.raises(Misfit, match=r"the conversation has \d+ tokens, and the model takes 20"):
        policy(template, 20)
    with pytest.raises(ValueError, match="ids, the model 3"):
        policy(template).check(GPTConfig(vocab_size=3, n_heads=2, d_model=16), template.tokenizer)


# --- training on it ---------------------------------------------------------------------------------------------------


def trained(folder, engine, steps, resume=False, share=0.7):
    student, template = new(1)
    data = policy(template, on_policy_share=share, max_new_tokens=8)
    loss = DistillLoss(new(2)[0], data.settings)
    config = TrainConfig(**{**vars(TRAIN), "max_steps": steps})
    make = functools.partial(engine, loss=loss)
    return train(student, data, config, folder, engine=make, resume=resume, progress=False)


@pytest.mark.parametrize(
    "engine",
    [
        NumpyEngine,
        functools.partial(ThreadedNumpyEngine, threads=2),
        functools.partial(TorchEngine, settings=EngineConfig(device="cpu", compile="off")),
    ],
    ids=["numpy", "threads", "torch"],
)
def test_a_stopped_run_goes_on_to_the_last_bit(tmp_path, engine):
    whole = trained(tmp_path / "whole", engine, 4)
    trained(tmp_path / "parts", engine, 2)
    parts = trained(tmp_path / "parts", engine, 4, resume=True)
    assert whole.state.step == parts.state.step == 4
    for (name, a), b in zip(whole.engine.model_arrays().items(), parts.engine.model_arrays().values()):
        assert (a == b).all(), name
    assert whole.evaluation == parts.evaluation
    assert list(whole.evaluation.figures()) == ["loss", "kl", "cross_entropy", "agreement"]
    log = (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert '"kl"' in log and '"answer_tokens"' in log


def test_evaluation_is_the_mean_over_all_answers():
    student, template = new(1)
    data = policy(template)
    loss = DistillLoss(new(2)[0], data.settings)
    run = engine_of(student, loss)
    found = data.evaluate(run, TRAIN, CONTEXT)
    sums = [run.batch_sums(row[0][None], row[1][None]) for row in data.val_rows]
    n_targets = sum((row[1] != IGNORE).sum() for row in data.val_rows)
    for name, value in found.figures().items():
        assert value == pytest.approx(sum(s[name] for s in sums) / n_targets, rel=1e-10)
    assert 0 <= found.metrics["agreement"] <= 1


def test_a_student_learns_from_its_own_mistakes(tmp_path):
    student, template = new(1, spread=2.0)
    data = policy(template, divergence="reverse", max_new_tokens=8)
    run = engine_of(student, DistillLoss(new(2, spread=2.0)[0], data.settings))
    batches = data.batches(run, TRAIN, CONTEXT)
    held_out = [data.batches(run, TrainConfig(**{**vars(TRAIN), "seed": 99}), CONTEXT).next() for _ in range(2)]

    def kl():
        return sum(run.batch_sums(*batch)["kl"] for batch in held_out)

    before = kl()
    for _ in range(25):
        run.forward_backward([batches.next()])
        run.clip_gradients(1.0)
        run.step(1e-2)
    assert kl() < 0.7 * before


# --- what the teacher writes ------------------------------------------------------------------------------------------


def test_the_teachers_answers_take_the_place_of_the_last_turns():
    teacher, template = new(3)
    chats, left_out = write_chats(teacher, template, CHATS, max_new_tokens=40, sampling=Sampling(), seed=1)
    assert chats and len(chats) + left_out == len(CHATS)
    prompts = [c.messages[:-1] for c in CHATS]
    places = [prompts.index(c.messages[:-1]) for c in chats]
    assert places == sorted(places)
    for written in chats:
        assert written.messages[-1]["role"] == "assistant" and written.messages[-1]["content"].strip()
        template.encode(written.messages)  # which can be learned
    again, _ = write_chats(teacher, template, CHATS, max_new_tokens=40, sampling=Sampling(), seed=1, batch_size=2)
    assert again == chats
    assert write_chats(teacher, template, CHATS, max_new_tokens=40, sampling=Sampling(), seed=2)[0] != chats


def test_answers_without_an_end_or_a_text_are_left_out():
    teacher, template = new(3)
    options = {"sampling": Sampling(), "seed": 1}
    chats = CHATS * 4
    longer, few_left_out = write_chats(teacher, template, chats, max_new_tokens=60, **options)
    shorter, more_left_out = write_chats(teacher, template, chats, max_new_tokens=8, **options)
    assert 0 < few_left_out < more_left_out
    assert all(len(written.messages[-1]["content"]) < 8 and written in longer for written in shorter)
    with pytest.raises(ValueError, match=r"none of the teacher's 11 answers was a text that ends within 1 tokens"):
        write_chats(teacher, template, CHATS, max_new_tokens=1, **options)
    with pytest.raises(Misfit, match=r"the messages before the answer.* have \d+ tokens, and the model takes 20"):
        write_chats(new(3, context=20)[0], template, CHATS, max_new_tokens=5)


def test_answers_with_a_control_token_are_left_out(monkeypatch):
    teacher, template = new(3)
    begin, end = template.tokenizer.special_tokens["<|im_start|>"], template.end_of_turn
    a, b = template.tokenizer.encode("ab")
    rows = [[a, begin, b, end], [a, b, end], [end], [a, b]]
    monkeypatch.setattr(distill_data, "write_answers", lambda *_, **__: [answer_of(row, template) for row in rows])
    written, left_out = write_chats(teacher, template, CHATS[:4], max_new_tokens=4)
    assert left_out == 3
    assert written == [chat("say b", "ab")]

"""Rollouts: drawn from their own seeds, rewarded, learned from, and taken up again in the middle of a batch."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from minillm.assistant.answers import answer_of, write_answers
from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.grpo import GRPOConfig, GRPOLoss, advantages
from minillm.assistant.rewards import Rewards
from minillm.assistant.rollouts import Prompts, RolloutData
from minillm.assistant.vocabulary import with_chat_tokens
from minillm.data import Prompt
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.lora import LoraConfig, add_lora
from minillm.finetune.objectives import Misfit
from minillm.generate import Sampling
from minillm.models import GPT, GPTConfig, LlamaConfig, LSTMConfig, model_from_config
from minillm.settings import IGNORE, TrainConfig
from minillm.tokenizers import CharTokenizer
from minillm.training.run_log import read_metrics
from minillm.training.train import train

WORDS = ["ab", "b", "abc", "cab", "cc", "bcabc"]
PROMPTS = [Prompt(({"role": "user", "content": word},), {"prompt": word}, f"p.jsonl, line {i}")
           for i, word in enumerate(WORDS, 1)]  # fmt: skip
SETTINGS = GRPOConfig(group=4, prompts_per_step=2, max_new_tokens=6)
TRAIN = TrainConfig(
    batch_size=4, grad_accumulation=2, lr=0.01, max_steps=6, warmup_steps=1, eval_every=3, save_every=1, seed=3
)


def many_a(answer, example):
    return answer.count("a") / 6


def start(dtype=np.float32, seed=0, **options):
    tokenizer = CharTokenizer.train(["abc useritn\n"])
    config = GPTConfig(vocab_size=tokenizer.vocab_size, context=48, n_layers=1, n_heads=2, d_model=16, **options)
    model, tokenizer = with_chat_tokens(GPT(config, np.random.default_rng(seed)), tokenizer)
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(dtype)
    return model, ChatTemplate.chatml(tokenizer)


def engine_for(name, settings=SETTINGS):
    loss = GRPOLoss(settings)
    if name == "torch":
        pytest.importorskip("torch")
        from minillm.engines.torch_engine import TorchEngine
        from minillm.settings import EngineConfig

        return partial(TorchEngine, settings=EngineConfig(name="torch", device="cpu"), loss=loss)
    if name == "threads":
        return partial(ThreadedNumpyEngine, threads=2, loss=loss)
    return partial(NumpyEngine, loss=loss)


def data_for(template, settings=SETTINGS, reward=many_a):
    return RolloutData(
        Prompts(template, 48, settings.max_new_tokens), PROMPTS, PROMPTS[:3], Rewards([reward]), settings
    )


def text_of(template, ids):
    return answer_of(ids, template).text


def write(model, template, prompts, n, sampling, seeds):
    return [a.ids for a in write_answers(model, template, prompts, max_new_tokens=n, sampling=sampling, seeds=seeds)]


def drawn(engine="numpy", settings=SETTINGS, config=TRAIN, dtype=np.float64):
    """(batches after the first draw, its data): of a new model."""
    model, template = start(dtype)
    data = data_for(template, settings)
    run = engine_for(engine, settings)(model, config)
    batches = data.batches(run, config, 48)
    batches.draw()
    return batches, data


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_an_answer_depends_on_its_seed_and_prompt_only(engine):
    batches, data = drawn(engine)
    model, template = batches.run.model, data.template
    rows, epochs = batches.prompts.rows_at(np.arange(2))
    for i, (rollout, sample) in enumerate(zip(batches.rollouts, [0, 1, 2, 3] * 2)):
        assert rollout.prompt == rows[i // 4]
        seed = (TRAIN.seed, rollout.prompt, int(epochs[i // 4]), sample)
        for others in ([], [2, 0], [5, 5, 1, 4]):
            prompts = [data.prompts[rollout.prompt], *(data.prompts[n] for n in others)]
            seeds = [seed, *((9, n) for n in others)]
            assert write(model, template, prompts, 6, Sampling(), seeds)[0] == rollout.answer
    assert len({tuple(rollout.answer) for rollout in batches.rollouts}) > 4


@pytest.mark.parametrize("engine", ["numpy", "threads", "torch"])
def test_a_batch_holds_what_was_drawn(engine):
    settings = replace(SETTINGS, kl=0.1, temperature=0.8)
    batches, data = drawn(engine, settings)
    rollouts = batches.rollouts
    texts = [text_of(data.template, r.answer) for r in rollouts]
    rewards = np.array([many_a(text, {}) for text in texts]).reshape(2, 4)
    assert [r.advantage for r in rollouts] == advantages(rewards).reshape(-1).tolist()
    assert data.gauges()["reward"] == pytest.approx(rewards.mean())
    stop = data.template.stop_ids
    assert [r.ended for r in rollouts] == [r.answer[-1] in stop for r in rollouts]
    assert data.gauges()["ended"] == np.mean([r.ended for r in rollouts])
    assert data.gauges()["response_length"] == np.mean([len(r.answer) for r in rollouts])

    seen = []
    plain, _ = start(np.float64)
    for _ in range(2):  # a pass
        ids, targets, advantage, old, reference = batches.next()
        assert len(ids) == 4
        for row in range(4):
            places = np.flatnonzero(targets[row] != IGNORE)
            n = places[0] + 1  # ids of the prompt
            assert places.tolist() == list(range(places[0], places[-1] + 1))
            answer = targets[row][places].tolist()
            prompt, found = ids[row, :n].tolist(), [r for r in rollouts if r.answer == answer]
            mine = [r for r in found if r.advantage == advantage[row] and data.prompts[r.prompt] == prompt]
            assert mine
            seen.append((tuple(prompt), tuple(answer)))
            logits = plain(np.array([prompt + answer[:-1]])).data[0, n - 1 :] / 0.8
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            expected = log_probs[np.arange(len(answer)), answer]
            np.testing.assert_allclose(old[row][places], expected, rtol=1e-9)
            np.testing.assert_allclose(reference[row][places], expected, rtol=1e-9)
            assert not old[row][targets[row] == IGNORE].any()
    assert sorted(seen) == sorted((tuple(data.prompts[r.prompt]), tuple(r.answer)) for r in rollouts)


def test_the_entropy_is_that_of_the_next_token():
    batches, data = drawn()
    plain, _ = start(np.float64)
    entropies = []
    for rollout in batches.rollouts:
        prompt = data.prompts[rollout.prompt]
        logits = plain(np.array([prompt + rollout.answer[:-1]])).data[0, len(prompt) - 1 :]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        entropies += (-p * np.log(p)).sum(-1).tolist()
    assert data.gauges()["entropy"] == pytest.approx(np.mean(entropies))


def test_each_pass_takes_all_answers_in_another_order():
    batches, _ = drawn(settings=replace(SETTINGS, inner_epochs=3))
    first = list(batches.rollouts)
    passes = [np.concatenate([batches.next()[2] for _ in range(2)]) for _ in range(3)]
    assert batches.rollouts == first
    for one in passes:
        assert sorted(one) == sorted(r.advantage for r in first)
    assert len({tuple(one) for one in passes}) == 3
    batches.next()
    assert batches.rollouts != first


def test_answers_that_were_cut_off_are_left_out_if_asked_for():
    for mask in (False, True):
        batches, _ = drawn(settings=replace(SETTINGS, mask_cut=mask, max_new_tokens=3))
        cut = sum(not r.ended for r in batches.rollouts)
        counts = np.concatenate([(batches.next()[1] != IGNORE).any(axis=1) for _ in range(2)])
        assert cut > 0
        assert counts.sum() == (8 - cut if mask else 8)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_first_step_has_loss_0_ratio_1_and_a_gradient(engine, tmp_path):
    settings = replace(SETTINGS, length="sequence", kl=0.1)
    model, template = start(np.float64)
    data = data_for(template, settings)
    config = replace(TRAIN, max_steps=2)
    train(model, data, config, tmp_path, engine=engine_for(engine, settings), progress=False)
    first, second, *_ = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert abs(first["loss"]) < 1e-12 and first["clip_share"] == 0 and abs(first["kl"]) < 1e-12
    assert first["ratio"] == pytest.approx(1, abs=1e-12) and first["grad_norm"] > 1e-3
    assert second["kl"] > 1e-6  # the model has gone from where it began, the reference has not
    assert {"reward", "reward_std", "equal_groups", "response_length", "entropy", "ended"} <= first.keys()


def test_both_engines_learn_the_same(tmp_path):
    pytest.importorskip("torch")
    settings = replace(SETTINGS, inner_epochs=2, kl=0.05)
    rows = {}
    for engine in ("numpy", "torch", "threads"):
        model, template = start(np.float64)
        data = data_for(template, settings)
        train(model, data, TRAIN, tmp_path / engine, engine=engine_for(engine, settings), progress=False)
        rows[engine] = read_metrics(tmp_path / engine / "metrics.jsonl")
    for other in ("torch", "threads"):
        for mine, theirs in zip(rows["numpy"], rows[other], strict=True):
            for name in mine.keys() - {"seconds", "tokens_per_second", "memory_gb", "best"}:
                assert mine[name] == pytest.approx(theirs[name], rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_goes_on_to_the_last_bit_in_the_middle_of_a_batch(engine, stop, tmp_path):
    """Steps 1 and 2 are on the same answers, as are 3 and 4: after an odd step answers are left."""
    settings = replace(SETTINGS, inner_epochs=2, kl=0.05)
    weights = {}
    for name in ("whole", "parts"):
        for resume, steps in [(False, 6)] if name == "whole" else [(False, stop), (True, 6)]:
            model, template = start(dropout=0.1)
            data = data_for(template, settings)
            config = replace(TRAIN, max_steps=steps, schedule="constant")
            options = {"engine": engine_for(engine, settings), "resume": resume, "progress": False}
            result = train(model, data, config, tmp_path / name, **options)
        weights[name] = result.engine.model_arrays()
    for name, array in weights["whole"].items():
        np.testing.assert_array_equal(array, weights["parts"][name], err_msg=name)
    logs = [[{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second", "memory_gb")}
             for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
            for name in ("whole", "parts")]  # fmt: skip
    assert logs[0] == logs[1]


def test_the_position_is_json_and_must_fit():
    settings = replace(SETTINGS, kl=0.1, inner_epochs=2)
    batches, data = drawn(settings=settings)
    batches.next()
    state = json.loads(json.dumps(batches.state_dict()))
    again, other = drawn(settings=settings)
    other.drawn = {}
    again.load_state_dict(state)
    assert again.rollouts == batches.rollouts and other.drawn == data.drawn
    for _ in range(6):
        for mine, theirs in zip(batches.next(), again.next(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for change, said in (
        ({"grpo": {**state["grpo"], "group": 8}}, "group was 8 and is 4 now"),
        ({"rollouts": state["rollouts"][1:]}, "the saved answers are damaged"),
        ({"rollouts": [{**r, "old": [1.0]} for r in state["rollouts"]]}, "the saved answers are damaged"),
        ({"rollouts": [{**r, "reference": []} for r in state["rollouts"]]}, "the saved answers are damaged"),
        ({"rollouts": [{**r, "prompt": 6} for r in state["rollouts"]]}, "the saved answers are damaged"),
        ({"used": 17}, "the saved answers are damaged"),
        ({"used": 3}, "stopped after 3 of 16 answers, which are no whole batches of batch_size = 4"),
        ({"dtype": "int8"}, "the saved answers are damaged"),
        ({"rollouts": [{**r, "answer": [99] * len(r["answer"])} for r in state["rollouts"]]}, "answers are damaged"),
        ({"prompts": {**state["prompts"], "data": "x"}}, "cannot resume the data where it stopped: data was 'x'"),
    ):
        with pytest.raises(ValueError, match=said):
            again.load_state_dict({**state, **change})
    with pytest.raises(ValueError, match="lacks drawn, dtype, grpo, rollouts, used: it was not saved by a GRPO run"):
        again.load_state_dict({"prompts": {}})


@pytest.mark.parametrize("engine", ["numpy", "threads", "torch"])
def test_the_reference_of_adapters_is_the_model_without_them(engine):
    settings = replace(SETTINGS, kl=0.1)
    model, template = start(np.float64)
    add_lora(model, LoraConfig(rank=2), np.random.default_rng(0))
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.data = np.random.default_rng(1).normal(size=parameter.shape)
    data = data_for(template, settings)
    batches = data.batches(engine_for(engine, settings)(model, TRAIN), TRAIN, 48)
    batches.draw()
    plain, _ = start(np.float64)
    for rollout in batches.rollouts:
        prompt = data.prompts[rollout.prompt]
        logits = plain(np.array([prompt + rollout.answer[:-1]])).data[0, len(prompt) - 1 :]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = log_probs[np.arange(len(rollout.answer)), rollout.answer]
        np.testing.assert_allclose(rollout.reference, expected, rtol=1e-9)
        assert np.abs(np.array(rollout.old) - expected).max() > 1e-3


def test_a_policy_gradient_raises_a_trivial_reward(tmp_path):
    model, template = start()
    config = replace(TRAIN, max_steps=40, eval_every=40, save_every=40, lr=0.02, batch_size=32, grad_accumulation=1)
    settings = replace(SETTINGS, group=8, prompts_per_step=4)
    data = data_for(template, settings)
    result = train(model, data, config, tmp_path, engine=engine_for("numpy", settings), progress=False)
    rewards = [row["reward"] for row in read_metrics(tmp_path / "metrics.jsonl") if "reward" in row]
    assert np.mean(rewards[:3]) < 0.15
    assert np.mean(rewards[-3:]) > 0.8
    assert result.evaluation.figures()["reward"] > 0.8 and result.evaluation.score < -0.8


@pytest.mark.parametrize("kind", [LlamaConfig, LSTMConfig])
def test_other_models_draw_and_learn(kind, tmp_path):
    _, template = start()
    sizes = {"d_model": 16, "n_layers": 1} | ({"n_heads": 2} if kind is LlamaConfig else {})
    model = model_from_config(kind(vocab_size=template.tokenizer.vocab_size, context=48, **sizes))
    result = train(model, data_for(template), replace(TRAIN, max_steps=2), tmp_path, engine=engine_for("numpy"),
                   progress=False)  # fmt: skip
    assert result.state.step == 2


def test_evaluation_is_greedy_and_counts():
    batches, data = drawn()
    found = data.evaluate(batches.run, TRAIN, 48)
    answers = [write(batches.run.model, data.template, [ids], 6, Sampling(temperature=0), None)[0]
               for ids in data.val_prompts]  # fmt: skip
    figures = found.figures()
    assert figures["reward"] == pytest.approx(np.mean([many_a(text_of(data.template, ids), {}) for ids in answers]))
    assert figures["response_length"] == np.mean([len(ids) for ids in answers])
    assert found.score == -figures["reward"] == found.loss


def test_several_rewards_are_shown_apart():
    model, template = start()
    rewards = Rewards([many_a, lambda answer, example: 2.0], [1, 0.5])
    data = RolloutData(Prompts(template, 48, 6), PROMPTS, PROMPTS, rewards, SETTINGS)
    data.batches(engine_for("numpy")(model, TRAIN), TRAIN, 48).draw()
    gauges = data.gauges()
    assert gauges["reward"] == pytest.approx(gauges["reward_many_a"] + 0.5 * gauges["reward_<lambda>"])


def test_what_does_not_fit_is_refused():
    model, template = start()
    data = data_for(template)
    data.check(model.config, None)
    with pytest.raises(Misfit, match=r"p.jsonl, line 1: the prompt and an answer of up to 30 tokens \(max_new"):
        data_for(template, replace(SETTINGS, max_new_tokens=30))
    with pytest.raises(ValueError, match="they do not belong together"):
        data.check(replace(model.config, vocab_size=5), None)
    with pytest.raises(ValueError, match="there must be prompts to train on and to validate with, not 6 and 0"):
        RolloutData(Prompts(template, 48, 6), PROMPTS, [], Rewards([many_a]), SETTINGS)
    run = engine_for("numpy")(model, TRAIN)
    with pytest.raises(ValueError, match=r"4 \* 2 = 8 answers must be whole steps of .* = 3 \* 2 = 6: change one"):
        data.batches(run, replace(TRAIN, batch_size=3), 48)
    run.world_size = 2
    with pytest.raises(ValueError, match="rollouts are drawn in one process, not in 2: start it without torchrun"):
        data.batches(run, TRAIN, 48)
    bad = Prompt(({"role": "assistant", "content": "a"},), {}, "p.jsonl, line 9")
    with pytest.raises(Misfit, match=r"p.jsonl, line 9: a prompt ends with the user's message"):
        RolloutData(Prompts(template, 48, 6), [bad], PROMPTS, Rewards([many_a]), SETTINGS)


def test_a_reward_that_fails_ends_the_run_with_its_prompt(tmp_path):
    model, template = start()
    data = data_for(template, reward=lambda answer, example: float("nan"))
    with pytest.raises(ValueError, match=r"p.jsonl, line \d: the reward '<lambda>' must be a finite number"):
        train(model, data, TRAIN, tmp_path, engine=engine_for("numpy"), progress=False)

"""Reward models: Bradley and Terry's loss as it is printed, the same on every engine; and a trained one as a reward."""

import math
from functools import partial

import numpy as np
import pytest

from minillm.assistant.conversations import ChatTemplate
from minillm.assistant.reward import RewardData, RewardLoss, RewardModel, bradley_terry, ids_to_score, rewards_of
from minillm.data import Preference
from minillm.engines.numpy_engine import NumpyEngine
from minillm.engines.threads import ThreadedNumpyEngine
from minillm.finetune.heads import with_classifier
from minillm.finetune.objectives import Misfit
from minillm.models import GPT, GPTConfig, LlamaConfig, model_from_config
from minillm.settings import TrainConfig
from minillm.tensor import Tensor
from minillm.tokenizers import CharTokenizer
from minillm.tokenizers.extend import with_special_tokens
from minillm.training.train import train

torch = pytest.importorskip("torch")
pytest.importorskip("jinja2", reason="chat templates need jinja2")

LETTERS = "abcdefghijklmnopqrstuvwxyz<>|_ \n"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<pad>"]
CHAR = with_special_tokens(CharTokenizer.train([LETTERS]), SPECIAL)
PAD, END = CHAR.special_tokens["<pad>"], CHAR.special_tokens["<|im_end|>"]
TEMPLATE = ChatTemplate.chatml(CHAR)
CONTEXT = 72
# Polite answers are better, whatever they are about.
WORDS = ["tea", "bread", "a coat", "an apple", "soap", "milk", "a map", "salt", "rice", "a pen"]
PAIRS = [Preference(f"sell {word}", f"please take {word}", f"no {word} here", f"f.jsonl, line {i}") for i, word in
         enumerate(WORDS, 1)]  # fmt: skip


def make_model(dtype=np.float64, kind="gpt", pad_id=PAD):
    sizes = {"vocab_size": CHAR.vocab_size, "context": CONTEXT, "n_layers": 2, "n_heads": 2, "d_model": 16}
    config = GPTConfig(**sizes) if kind == "gpt" else LlamaConfig(**sizes, d_ff=24)
    body = model_from_config(config, np.random.default_rng(0))
    model = with_classifier(body, "regression", (), pad_id, np.random.default_rng(1)).to(dtype)
    model.score.weight.data *= 20  # so that rewards differ from the start
    return model


def make_data(train_pairs=PAIRS, **options):
    return RewardData(TEMPLATE, train_pairs, PAIRS[:4], CONTEXT, PAD, **options)


def plain(c, r, center):
    return -torch.log(torch.exp(c) / (torch.exp(c) + torch.exp(r))) + center * (c + r) ** 2


def check_formula(seed):
    rng = np.random.default_rng(seed)
    values, center = rng.normal(0, 8, (2, 50)), float(rng.choice([0.0, 0.01, 0.5]))
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    expected = plain(*theirs, center)
    expected.sum().backward()
    ours = [Tensor(v, requires_grad=True) for v in values]
    losses = bradley_terry(*ours, center)
    losses.sum().backward()
    also = [torch.tensor(v, requires_grad=True) for v in values]
    bradley_terry(*also, center).sum().backward()
    np.testing.assert_allclose(losses.data, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    for a, b, c in zip(ours, also, theirs):
        np.testing.assert_allclose(a.grad, c.grad.numpy(), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(b.grad.numpy(), c.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_the_loss_is_bradley_and_terrys():
    for seed in range(40):
        check_formula(seed)


@pytest.mark.long
def test_the_loss_is_bradley_and_terrys_on_many_inputs():
    for seed in range(40, 4_040):
        check_formula(seed)


def test_large_rewards_stay_finite():
    values = np.array([-1e4, -1e3, 0.0, 1e3, 1e4], dtype=np.float32)
    chosen, rejected = (Tensor(v.reshape(-1), requires_grad=True) for v in np.meshgrid(values, values))
    losses = bradley_terry(chosen, rejected, 0.01)
    losses.sum().backward()
    assert all(np.isfinite(array).all() for array in (losses.data, chosen.grad, rejected.grad))


@pytest.mark.parametrize("center", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["gpt", "llama"])
def test_a_step_is_the_same_by_hand_and_on_every_engine(kind, center):
    from minillm.engines.torch_engine import TorchEngine
    from minillm.port import to_torch

    data = make_data()
    batch = data.objective.collate(data.rows)
    ported = to_torch(make_model(kind=kind))
    rewards = []  # each conversation for itself, without padding, read off its last token
    for row in data.rows:
        for ids in (row[0], row[2]):
            assert ids[-1] == END and not (ids == PAD).any()
            h = ported.decoder.hidden(torch.from_numpy(ids[None]))
            rewards.append(ported.score(h[0, -1]))
    rewards = torch.stack(rewards).reshape(-1, 2)
    expected = plain(rewards[:, 0], rewards[:, 1], center).mean()
    expected.backward()
    gradients = {name: p.grad.numpy() for name, p in ported.named_parameters()}
    margin = (rewards[:, 0] - rewards[:, 1]).detach().numpy()

    settings, loss = TrainConfig(batch_size=len(PAIRS)), RewardLoss(center)
    engines = [
        NumpyEngine(make_model(kind=kind), settings, loss=loss),
        ThreadedNumpyEngine(make_model(kind=kind), settings, threads=3, loss=loss),
        TorchEngine(make_model(kind=kind), settings, loss=loss),
    ]
    for engine in engines:
        assert float(engine.forward_backward([batch])) == pytest.approx(expected.item(), rel=1e-11)
        for name, p in engine.model.named_parameters():
            grad = p.grad if engine.name == "numpy" else p.grad.numpy()
            np.testing.assert_allclose(grad, gradients[name], rtol=1e-9, atol=1e-12)
        shown = engine.gauges(1.0)
        assert shown["margin"] == pytest.approx(margin.mean(), rel=1e-10)
        assert shown["accuracy"] == pytest.approx((margin > 0).mean(), rel=1e-7)
        assert shown["chosen_reward"] - shown["rejected_reward"] == pytest.approx(shown["margin"], rel=1e-9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    settings = TrainConfig(batch_size=5, max_steps=40, eval_every=40, save_every=40, lr=5e-3, warmup_steps=0)
    data, engine = make_data(metric="accuracy"), partial(NumpyEngine, loss=RewardLoss(0.01))
    result = train(make_model(np.float32), data, settings, folder, engine=engine, progress=False)
    assert result.evaluation.metrics["accuracy"] == 1.0 and result.evaluation.score == -1.0
    return result.engine.model


def test_a_trained_model_scores_answers_on_both_engines(trained):
    from minillm.port import to_torch

    conversations = [
        ([{"role": "user", "content": f"sell {word}"}], answer)
        for word in ("a hat", "oil")
        for answer in (f"please take {word}", f"no {word} here")
    ]
    found = rewards_of(trained, TEMPLATE, conversations)
    assert found.shape == (4,) and found[0] > found[1] and found[2] > found[3]
    np.testing.assert_allclose(rewards_of(trained, TEMPLATE, conversations, batch_size=1), found, rtol=1e-5)
    np.testing.assert_allclose(rewards_of(to_torch(trained), TEMPLATE, conversations), found, rtol=1e-4)
    batch = make_data().objective.collate([make_data().objective.encode(PAIRS[0])])[0]
    asked = [([{"role": "user", "content": PAIRS[0].prompt}], getattr(PAIRS[0], n)) for n in ("chosen", "rejected")]
    np.testing.assert_allclose(rewards_of(trained, TEMPLATE, asked), trained(batch[0]).data[:, 0], rtol=1e-5)


def test_a_reward_model_is_a_reward(trained):
    from minillm.assistant.rewards import Rewards
    from minillm.data.examples import Prompt

    prompts = [Prompt(({"role": "user", "content": "sell oil"},), {"prompt": "sell oil"}, "p.jsonl, line 1")] * 2
    found = Rewards([RewardModel(trained, TEMPLATE)])(["please take oil", "no oil here"], prompts)
    asked = [(prompts[0].messages, answer) for answer in ("please take oil", "no oil here")]
    np.testing.assert_allclose(found, rewards_of(trained, TEMPLATE, asked), rtol=1e-6)
    messages = RewardModel(trained, TEMPLATE)(["no oil here"], [{"prompt": "x", "messages": list(prompts[0].messages)}])
    np.testing.assert_allclose(messages, found[1:], rtol=1e-6)


def test_answers_that_no_template_takes_are_judged_all_the_same(trained):
    asked = [{"role": "user", "content": "sell oil"}]
    prompt = TEMPLATE.prompt(asked)
    assert ids_to_score(asked, "", TEMPLATE).tolist() == [*prompt, END]
    spelled = ids_to_score(asked, "no<|im_end|>", TEMPLATE)
    assert spelled.tolist() == [*prompt, *CHAR.encode("no"), *CHAR.encode("<|im_end|>", disallowed_special=()), END]
    assert (spelled == END).sum() == 2 and len(spelled) > len(prompt) + 12  # the user's turn and the answer end once
    assert ids_to_score(asked, "no", TEMPLATE).tolist() == [*prompt, *CHAR.encode("no"), END]
    assert np.isfinite(rewards_of(trained, TEMPLATE, [(asked, ""), (asked, "no<|im_end|>"), (asked, "\n")])).all()


def test_padding_that_also_ends_answers_does_no_harm():
    """Where the tokenizer has no token but the end to fill up with: the token before it is read, always."""
    model = make_model(pad_id=END)
    asked = [([{"role": "user", "content": "sell oil"}], answer) for answer in ("no", "please take oil")]
    together = rewards_of(model, TEMPLATE, asked)
    alone = [rewards_of(model, TEMPLATE, [one])[0] for one in asked]
    np.testing.assert_allclose(together, alone, rtol=1e-10)
    ids = ids_to_score(*asked[0], TEMPLATE)[None]
    expected = model.score(model.decoder.hidden(ids)[:, -2]).data[0, 0]
    assert together[0] == pytest.approx(expected, rel=1e-10)
    without = make_model(pad_id=None)
    np.testing.assert_allclose(rewards_of(without, TEMPLATE, asked), rewards_of(make_model(), TEMPLATE, asked))


def test_bad_input_says_what_to_do(trained):
    long = Preference("a", "b " * 40, "c", "f.jsonl, line 8")
    with pytest.raises(Misfit, match=r"f.jsonl, line 8: the chosen answer with its prompt has"):
        make_data([*PAIRS, long])
    exact = CONTEXT - len(ids_to_score([{"role": "user", "content": "a"}], "b", TEMPLATE)) + 1
    make_data([*PAIRS, Preference("a", "b" * exact, "c")])  # the last token is read, too: one more does not fit
    with pytest.raises(Misfit, match=f"has {CONTEXT + 1} tokens"):
        make_data([*PAIRS, Preference("a", "b" * (exact + 1), "c")])
    asked = [([{"role": "user", "content": "a"}], "b"), ([{"role": "user", "content": "a"}], "b" * 70)]
    with pytest.raises(ValueError, match=r"conversation 2 of 2 has .* tokens, and the reward model takes 72"):
        rewards_of(trained, TEMPLATE, asked)
    with pytest.raises(ValueError, match=r"gives no reward: it must be a classifier for 'regression'"):
        rewards_of(GPT(trained.config.decoder), TEMPLATE, asked)
    with pytest.raises(ValueError, match="gives no reward"):
        make_data().check(GPTConfig(CHAR.vocab_size, CONTEXT, n_heads=2, d_model=16), None)
    with pytest.raises(ValueError, match=f"pad_id = {PAD} must be the model's, which is {END}"):
        make_data().check(make_model(pad_id=END).config, None)
    make_data().check(trained.config, None)
    with pytest.raises(ValueError, match="center = -1 must be 0 or more"):
        RewardLoss(-1)
    with pytest.raises(ValueError, match="metric = 'r2' is none"):
        make_data(metric="r2")
    assert math.isfinite(RewardLoss(0.1).center)

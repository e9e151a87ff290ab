"""Rewards: functions of the user's own file, and what is said of each fault in them."""

import numpy as np
import pytest

from minillm.assistant.rewards import Rewards, load_reward
from minillm.data import Prompt

PROMPTS = [
    Prompt(({"role": "user", "content": f"{n}?"},), {"prompt": f"{n}?", "right": n}, f"p.jsonl, line {n}")
    for n in (1, 2)
]


def right(answer, example):
    return answer == str(example["right"])


def long(answer, example):
    return len(answer) / 10


def test_rewards_are_added_with_their_weights():
    assert Rewards([right])(["1", "3"], PROMPTS).tolist() == [1, 0]
    assert Rewards([right, long], [1, -2])(["1", "345"], PROMPTS).tolist() == [0.8, -0.6]
    assert Rewards([right, long]).each(["1", "345"], PROMPTS).tolist() == [[1, 0.1], [0, 0.3]]
    assert Rewards([right, long, right]).names == ["right_1", "long", "right_3"]


def test_whole_batches_are_given_to_what_asks_for_them():
    def judge(answers, examples):
        assert answers == ["a", "b"] and [e["right"] for e in examples] == [1, 2]
        return np.array([0.5, 2.0], dtype=np.float32)

    judge.batched = True
    assert Rewards([judge])(["a", "b"], PROMPTS).tolist() == [0.5, 2]


def test_a_reward_cannot_change_the_prompts():
    def spoil(answer, example):
        example.clear()
        return 1

    Rewards([spoil])(["1", "2"], PROMPTS)
    assert PROMPTS[0].record["right"] == 1


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(2), np.int64(3), np.bool_(True), np.array(1.5)])
def test_numbers_of_any_kind_are_rewards(value):
    assert Rewards([lambda answer, example: value])(["1"], PROMPTS[:1]).tolist() == [float(value)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "it is None: does it end without a return?"),
        (float("nan"), "it is nan."),
        (float("inf"), "it is inf."),
        ("0.5", "it is '0.5'."),
        ([0.5], "it is [0.5]."),
        (np.array([1.0, 2.0]), "it is array([1., 2.])."),
        (np.float64("nan"), "it is nan."),
        (1j, "it is 1j."),
    ],
)
def test_what_is_no_number_is_named_with_its_prompt(value, said):
    def reward(answer, example):
        return 0 if example["right"] == 1 else value

    with pytest.raises(ValueError) as caught:
        Rewards([reward])(["one", "two"], PROMPTS)
    expected = "p.jsonl, line 2: the reward 'reward' must be a finite number, True or False, and for the answer 'two' "
    assert str(caught.value) == expected + said


def test_a_reward_that_raises_is_named_with_its_prompt_and_line(tmp_path):
    (tmp_path / "mine.py").write_text("def reward(answer, example):\n    x = 1\n    return 1 / int(answer)\n")
    reward = load_reward(f"{tmp_path / 'mine.py'}:reward")
    assert Rewards([reward])(["1", "2"], PROMPTS).tolist() == [1, 0.5]
    with pytest.raises(ValueError) as caught:
        Rewards([reward])(["1", "0"], PROMPTS)
    assert str(caught.value) == (
        "p.jsonl, line 2: the reward 'reward' raised ZeroDivisionError: division by zero (mine.py, line 3), for '0'. "
        "Mend it: it must return a number whatever the answer is, as 0 for one that it cannot read."
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_faults_of_a_batched_reward():
    def few(answers, examples):
        return [1]

    def one(answers, examples):
        return 1

    def broken(answers, examples):
        raise RuntimeError

    for function in (few, one, broken):
        function.batched = True
    said_of = {few: "gave 1 values for 2 answers", one: "gave 1 values", broken: "raised RuntimeError"}
    for function, said in said_of.items():
        with pytest.raises(ValueError, match=f"'{function.__name__}'.* {said}") as caught:
            Rewards([function])(["a", "b"], PROMPTS)
        assert "p.jsonl, line 1" in str(caught.value)


def test_faults_of_a_file(tmp_path):
    (tmp_path / "good.py").write_text("from beside import VALUE\nnumber = 3\ndef reward(a, e):\n    return VALUE\n")
    (tmp_path / "beside.py").write_text("VALUE = 4\n")
    (tmp_path / "bad.py").write_text("def reward(a, e):\n    return (\n")
    (tmp_path / "ends.py").write_text("import sys\nx = 1\nsys.exit(2)\n")
    assert load_reward(f"{tmp_path}/good.py:reward")("", {}) == 4
    for place, said in {
        "good.py": "is named as FILE.py:function, as in rewards.py:reward, not",
        "good.txt:reward": "is named as FILE.py:function",
        "good.py:a-b": "is named as FILE.py:function",
        "none.py:reward": "there is no file",
        "good.py:other": r"has no function 'other'. Its functions: reward\.",
        "good.py:number": "has something that is no function under the name 'number'",
        "bad.py:reward": r"cannot be run: SyntaxError: .* \(bad.py, line 2\)",
        "ends.py:reward": r"cannot be run: SystemExit: 2 \(ends.py, line 3\)",
    }.items():
        with pytest.raises(ValueError, match=said):
            load_reward(f"{tmp_path}/{place}")


def test_faults_of_the_sum():
    with pytest.raises(ValueError, match="there must be a reward function"):
        Rewards([])
    for weights in ([1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="must be finite numbers, one for each of 2 rewards"):
            Rewards([right, long], weights)

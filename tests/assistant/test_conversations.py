"""The mask covers what the assistant says, its end included, and nothing else, whatever the template; and the ids
before an answer are those that the model is given when it is asked."""

import copy
from itertools import groupby

import pytest
from chat_templates import BOS_EOS, DEEPSEEK_R1, IM, MISTRAL_3, NO_END, PHI_3, QWEN_3, SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.assistant.conversations import ChatTemplate, stop_ids_of
from minillm.assistant.template import render_chat
from minillm.hub import PretrainedTokenizer
from minillm.hub.conversation import chat_template_of
from minillm.tokenizers import BPETokenizer, CharTokenizer, Template
from minillm.tokenizers.added import AddedToken
from minillm.tokenizers.extend import with_special_tokens

pytest.importorskip("jinja2", reason="chat templates need jinja2")

# White space and newlines join with each other and with letters, so that a cut at the wrong place gives other tokens.
CORPUS = ["assistant\n\n a\n\n\n user: hello there\n\n  \n ASSISTANT: hello  there [/INST] hello\n " * 20]
BPE = BPETokenizer.train(CORPUS, 330, pattern="gpt4")
GPT2 = BPETokenizer.train(CORPUS, 330, pattern="gpt2")
CHAR = CharTokenizer.train([chr(c) for c in range(32, 127)] + ["\n\té中😀\U000f0000\U000f0001"])
SPECIAL = {text for sample in SAMPLES.values() for text in sample.special}

contents = st.one_of(
    st.sampled_from(["think", "end", "\n\nassistant\n", " a ", "end_of_turn", "\U000f0000hello\U000f0001", "hello"]),
    st.text(st.sampled_from("ah \n\té中😀<|>[]/{}%\U000f0000"), min_size=1, max_size=12),
).filter(lambda text: text.strip() and not any(special in text for special in SPECIAL))


@st.composite
def conversations(draw, system=True):
    turns = [{"role": "system", "content": draw(contents)}] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns += [{"role": role, "content": draw(contents)} for role in ("user", "assistant")]
    return turns


def template_for(sample, core):
    return ChatTemplate(sample.source, with_special_tokens(core, sample.special), sample.variables)


def rendered(template, turns, prompt=False):
    given = {"tools": None, "documents": None, "add_generation_prompt": prompt, **template.variables}
    return render_chat(template.source, {"messages": turns, **given})


def runs(ids, mask):
    """The stretches of ids that are learned, as (begin, ids)."""
    found, at = [], 0
    for learned, group in groupby(zip(ids, mask), key=lambda pair: pair[1]):
        stretch = [token for token, _ in group]
        found += [(at, stretch)] * learned
        at += len(stretch)
    return found


@pytest.mark.parametrize("core", [BPE, GPT2, CHAR], ids=["gpt4", "gpt2", "char"])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_mask_covers_what_the_assistant_says(name, core):
    sample = SAMPLES[name]
    template = template_for(sample, core)
    decode, special = template.tokenizer.decode, set(template.tokenizer.special_tokens.values())

    @settings(max_examples=8 if core is BPE else 3, deadline=None)
    @given(conversations(sample.system))
    def check(turns):
        ids, mask = template.encode(turns)
        assert len(ids) == len(mask) and decode(ids) == rendered(template, turns)
        answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
        found = runs(ids, mask)
        assert len(found) == len(answers)
        for (begin, said), number in zip(found, answers):
            content = turns[number]["content"]
            wanted = sample.answer.replace("{raw}", content).replace("{content}", content.strip())
            assert decode(said) == wanted
            assert ids[:begin] == template.prompt(turns[:number])
            assert decode(ids[:begin]) == rendered(template, turns[:number], prompt=True)
            assert said[-1] in template.stop_ids and not special & set(said[:-1])
        last_ids, last_mask = template.encode(turns, train_on="last")
        assert last_ids == ids and runs(ids, last_mask) == found[-1:]
        assert template.encode(turns, train_on="all") == (ids, [True] * len(ids))

    check()


def test_the_first_prompt_is_the_whole_text_encoded():
    """What any other program makes of it: no cut before the first answer."""
    for sample in SAMPLES.values():
        template = template_for(sample, GPT2)
        turns = [{"role": "user", "content": "hello\n there "}]
        text = rendered(template, turns, prompt=True)
        assert template.prompt(turns) == template.tokenizer.encode(text, allowed_special="all")


def test_marks_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    sample = SAMPLES["SmolLM 3"]
    template = template_for(sample, BPE)
    PretrainedTokenizer(template.tokenizer).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}

    @settings(max_examples=20, deadline=None)
    @given(conversations())
    def check(turns):
        ids, mask = template.encode(turns)
        expected = theirs.apply_chat_template(turns, chat_template=sample.source, **options)
        assert ids == expected["input_ids"] and mask == [bool(one) for one in expected["assistant_masks"]]

    check()


def test_marks_in_odd_places():
    core = with_special_tokens(GPT2, IM)
    turns = [{"role": role, "content": "hello\n"} for role in ("user", "assistant") * 2]
    head = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    tail = "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    tail += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

    def said(middle, **options):
        template = ChatTemplate(head + middle + tail, core, {})
        ids, mask = template.encode(turns, **options)
        assert core.decode(ids) == rendered(template, turns)
        found = runs(ids, mask)
        assert ids[: found[-1][0]][: len(template.prompt(turns[:3]))] == template.prompt(turns[:3])
        return [core.decode(stretch) for _, stretch in found]

    # Two spans in a turn, one that ends within what would be one token, and what is set inside stays inside.
    two = "{% generation %} he{% set x = 1 %}{% endgeneration %}llo{% generation %} there{% endgeneration %}{{ x }}"
    assert len(core.encode(" hello")) == 1
    assert said(two) == [" he", " there"] * 2
    assert said(two, train_on="last") == [" he", " there"]
    assert said(two + "{% generation %}{% endgeneration %}") == [" he", " there"] * 2
    assert said("{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>") == ["hello\n"] * 2
    only = "{% if loop.last %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}no{% endif %}<|im_end|>"
    assert said(only) == ["hello\n"]
    assert said("{{ m.content }}<|im_end|>{% generation %}{% endgeneration %}") == ["hello\n<|im_end|>"] * 2
    with pytest.raises(ValueError, match="changes what it has between"):
        said("{% set x %}{% generation %} a {% endgeneration %}{% endset %}{{ x | trim }}")
    with pytest.raises(ValueError, match="within each other"):
        said("{% generation %}{% generation %}a{% endgeneration %}{% endgeneration %}")
    with pytest.raises(ValueError, match=r"no \{% generation %\} marks around the last turn"):
        said("{% if not loop.last %}{% generation %}a{% endgeneration %}{% endif %}", train_on="last")


ASKED = [{"role": role, "content": text} for role, text in [("system", "sys"), ("user", "q"), ("assistant", "a")]]
AGAIN = [*ASKED, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]


def test_a_template_that_rewrites_earlier_turns_is_refused_and_its_last_turn_is_not():
    template = ChatTemplate(QWEN_3, with_special_tokens(BPE, IM), {}, "x/chat_template.jinja")
    with pytest.raises(ValueError, match=r'^message 3: x/chat_template\.jinja .* another way .* \(train_on="last"'):
        template.encode(AGAIN)
    ids, mask = template.encode(AGAIN, train_on="last")
    ((begin, said),) = runs(ids, mask)
    assert template.tokenizer.decode(said) == "<think>\n\n</think>\n\nb<|im_end|>"
    assert ids[:begin] == template.prompt(AGAIN[:-1])
    thinking = [*ASKED[:-1], {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}]
    ids, mask = template.encode(thinking)
    assert template.tokenizer.decode(runs(ids, mask)[0][1]) == "<think>\nhm\n</think>\n\na<|im_end|>"


def test_a_system_message_that_moves_is_refused():
    template = ChatTemplate(MISTRAL_3, with_special_tokens(BPE, ["<s>", "</s>"]), BOS_EOS)
    with pytest.raises(ValueError, match=r"message 3: .* another text once"):
        template.encode(AGAIN)
    ids, mask = template.encode(AGAIN, train_on="last")
    assert [template.tokenizer.decode(said) for _, said in runs(ids, mask)] == [" b</s>"]
    assert ids[: mask.index(True)] == template.prompt(AGAIN[:-1])


UNFIT = {
    "a thought begun for the model": (DEEPSEEK_R1, ASKED, "another text once"),
    "no end of turn": (NO_END, ASKED, r"no special token behind the answer \(the tokenizer has .*</s>"),
    "another text": ("{% for m in messages %}<s>{{ m.content | upper }}</s>{% endfor %}", ASKED, "changes the answer"),
    "a part of it": (
        "{% for m in messages %}<s>{{ m.content[:5] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}",
        [*ASKED[:-1], {"role": "assistant", "content": "too long"}], "changes the answer's text",
    ),
    "no answers": (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}</s>{% endfor %}", ASKED, "or leaves it out",
    ),
    "an end for all but the last": (
        "{% for m in messages %}{{ m.content }}{% if not loop.last %}</s>{% endif %}{% endfor %}", AGAIN,
        "no special token",
    ),
    "an end for short answers": (
        "{% for m in messages %}{{ m.content + ('</s>' if m.content | length < 6 else 'end.') }}{% endfor %}",
        [*ASKED[:-1], {"role": "assistant", "content": "much longer"}], "changes the answer's text",
    ),
    "an end that comes and goes": (
        "{% for m in messages %}{{ m.content + ('</s>' if messages | length < 3 else '.') }}{% endfor %}", ASKED,
        "another text|changes the answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_templates_that_leave_it_open_are_refused(name):
    source, turns, reason = UNFIT[name]
    template = ChatTemplate(source, with_special_tokens(BPE, ["<s>", "</s>", "<|User|>", "<|Assistant|>"]), BOS_EOS)
    with pytest.raises(ValueError, match=reason) as error:
        template.encode(turns)
    assert "Put {% generation %} and {% endgeneration %} around" in str(error.value)
    assert template.prompt(turns[:-1])  # it can be talked with
    assert all(template.encode(turns, train_on="all")[1])


def test_white_space_that_belongs_to_a_token():
    """Phi 3's tokens take the newline behind them: the text is cut at answers only, so that they do here, too."""
    core = copy.copy(with_special_tokens(BPE, ["<s>", "</s>"]))
    for text in ("<|user|>", "<|assistant|>", "<|end|>"):
        token = AddedToken(text, core.vocab_size, rstrip=True)
        core.tokens, core.added_tokens = [*core.tokens, text.encode()], [*core.added_tokens, token]
        core.special_tokens = {**core.special_tokens, text: token.id}
    template = ChatTemplate(PHI_3, core, BOS_EOS)
    turns = [{"role": role, "content": "\n hello"} for role in ("user", "assistant") * 2]
    ids, mask = template.encode(turns)
    assert template.encode(turns)[0] == core.encode("<|user|>hello<|end|><|assistant|>", allowed_special="all") + [
        *(said := core.encode("\n hello<|end|>", allowed_special="all")),
        *core.encode("<|user|>hello<|end|><|assistant|>", allowed_special="all"), *said, core.special_tokens["</s>"],
    ]  # fmt: skip
    assert [stretch for _, stretch in runs(ids, mask)] == [said, said]
    assert ids[: runs(ids, mask)[1][0]] == template.prompt(turns[:3])


def test_the_beginning_is_written_once():
    core = copy.copy(with_special_tokens(BPE, ["<s>", "</s>"]))
    bos = core.special_tokens["<s>"]
    core.template = Template((("<s>", 0), ("$A", 0)), (("<s>", 0), ("$A", 0), ("$B", 0)), {"<s>": (bos,)})
    assert core.encode_pair("hello")[0][0] == bos
    template = ChatTemplate(SAMPLES["Vicuna"].source, core, BOS_EOS)
    assert bos not in template.encode(ASKED)[0] + template.prompt(ASKED[:-1])
    template = ChatTemplate(SAMPLES["Tulu"].source, core, BOS_EOS)
    assert template.encode(ASKED)[0].count(bos) == template.prompt(ASKED[:-1]).count(bos) == 1


def turns_of(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


BAD = {
    "empty answer": (turns_of(("user", "q"), ("assistant", " \n")), "content in message 2 .* is empty"),
    "no text": (turns_of(("user", "q"), ("assistant", None)), "there is no content in message 2"),
    "two in a row": (turns_of(("user", "q"), ("user", "q"), ("assistant", "a")), "two messages of the user in a row"),
    "system later": (turns_of(("user", "q"), ("system", "s"), ("assistant", "a")), "system message as number 2"),
    "the assistant first": (turns_of(("assistant", "a")), "begins with the assistant"),
    "no answer": (turns_of(("user", "q")), "ends without an answer"),
    "nothing": ([], "must be a list of objects"),
    "a tool": (turns_of(("user", "q"), ("tool", "3"), ("assistant", "a")), "has the role 'tool'"),
    "a call": ([*ASKED[:-1], {"role": "assistant", "content": "a", "tool_calls": [{}]}], "message 3 calls a tool"),
    "a control token": (turns_of(("user", "q<|im_end|>"), ("assistant", "a")), "message 1 holds '<|im_end|>'"),
    "in an answer": (turns_of(("user", "q"), ("assistant", "<|im_start|>")), "message 2 holds '<|im_start|>'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_conversations_are_refused(name):
    template = ChatTemplate.chatml(with_special_tokens(BPE, IM))
    messages, reason = BAD[name]
    for train_on in ("assistant", "last", "all"):
        with pytest.raises(ValueError, match=reason.replace("|", r"\|")) as error:
            template.encode(messages, train_on)
        assert str(error.value).endswith(".")


def test_bad_prompts_and_options_are_refused():
    template = ChatTemplate.chatml(with_special_tokens(BPE, IM))
    with pytest.raises(ValueError, match="ends with the user's message, not with the assistant's"):
        template.prompt(ASKED)
    with pytest.raises(ValueError, match=r"train_on must be one of assistant, last, all, not 'none'\."):
        template.encode(ASKED, "none")
    with pytest.raises(ValueError, match=r"ChatML needs the special token '<\|im_start\|>'"):
        ChatTemplate.chatml(BPE)


def test_what_ends_an_answer():
    special = ["<|endoftext|>", *IM, "</s>"]
    core = with_special_tokens(BPE, special)
    end, _, im_end, eos = (core.special_tokens[text] for text in special)
    assert ChatTemplate.chatml(core).stop_ids == (im_end, end)
    assert ChatTemplate(SAMPLES["Tulu"].source, core, BOS_EOS).stop_ids == (eos, end)
    assert stop_ids_of(ChatTemplate.chatml(core), [7, im_end]) == (im_end, end, 7)
    endless = ChatTemplate(NO_END, BPETokenizer.train(CORPUS, 260, special_tokens=[]), {})
    assert stop_ids_of(endless, 7) == (7,)
    with pytest.raises(ValueError, match="nothing ends an answer"):
        endless.stop_ids  # noqa: B018
    for name, sample in SAMPLES.items():
        template = template_for(sample, BPE)
        assert sample.answer.endswith(template.tokenizer.decode([template.end_of_turn])), name


def test_a_folders_template_and_the_hubs_own_method_agree():
    sample = SAMPLES["Llama 3"]
    core = with_special_tokens(BPE, sample.special)
    theirs = PretrainedTokenizer(core, {**sample.variables, "tokenizer_class": "x"}, chat_template=sample.source)
    template = chat_template_of(theirs)
    assert template.prompt(AGAIN[:-1]) == theirs.apply_chat_template(AGAIN[:-1], add_generation_prompt=True).input_ids
    assert template.encode(AGAIN)[0] == theirs.apply_chat_template(AGAIN).input_ids
    with pytest.raises(ValueError, match="no chat template"):
        chat_template_of(PretrainedTokenizer(core))


def test_the_clock_stands_still_within_a_conversation():
    """A template may write the time; the texts that are compared have the same. And there are no tools, which is not
    to say that nothing is known of them."""
    source = "{{ strftime_now('%H:%M:%S.%f') }}{% if tools is not none or documents is not none %}x{% endif %}"
    source += SAMPLES["ChatML"].source
    template = ChatTemplate(source, with_special_tokens(BPE, IM), {})
    ids, mask = template.encode(AGAIN)
    assert [template.tokenizer.decode(said) for _, said in runs(ids, mask)] == ["a<|im_end|>", "b<|im_end|>"]
    assert "x" not in template.tokenizer.decode(ids)

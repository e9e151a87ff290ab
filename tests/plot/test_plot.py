"""The pictures: right shapes, labels that can be drawn, errors that teach. How they look was judged by eye."""

import itertools
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from minillm import ops, plot
from minillm.generate import Sampling
from minillm.models import (
    GPT,
    BertConfig,
    ClassifierConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    LSTMConfig,
    model_from_config,
)
from minillm.plot import computation as graph_module
from minillm.plot import style
from minillm.plot.curves import running_mean
from minillm.tensor import Parameter, Tensor
from minillm.tokenizers import BPETokenizer
from minillm.tokenizers.bpe_plain import merge_steps

pytest.importorskip("matplotlib")

TOKENS = [" the", "cat", "你", "\n", "$a$", b"\xe4\xbd", " sat", "\x07", "<b>", "&"]


@pytest.fixture
def model():
    config = GPTConfig(vocab_size=30, context=16, n_layers=2, n_heads=4, d_model=32)
    return GPT(config, rng=np.random.default_rng(0))


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, 30, (3, 10))


def png(figure):
    """Draws the figure: missing glyphs and layout problems are warnings, which fail a test here."""
    data = figure._repr_png_()
    assert data.startswith(b"\x89PNG")
    return data


def test_importing_the_library_does_not_import_matplotlib():
    code = "import sys, minillm, minillm.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_figures_leave_pyplot_and_the_global_style_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure, _ = plot.subplots()
    png(figure)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_same_figure_gives_the_same_bytes(ids, model):
    inside = plot.look_inside(model, ids)
    assert png(plot.attention_grid(inside.attention[:, 0])) == png(plot.attention_grid(inside.attention[:, 0]))


def test_readable_labels():
    assert plot.readable(" a\n\t") == "␣a↵⇥"
    assert plot.readable(b"\xe4\xbd") == "E4·BD"
    assert plot.readable("你".encode()) == plot.readable("你")
    assert plot.readable("\x07") == "U+0007"
    assert plot.readable("$") == r"\$"
    assert plot.readable("abcdef", longest=4) == "abc…"
    assert plot.readable("你好") == ("你好" if plot.cjk_font() else "U+4F60 U+597D")


def test_without_a_chinese_font_labels_and_titles_show_code_points(monkeypatch):
    monkeypatch.setattr(style, "cjk_font", lambda: None)
    assert plot.readable("你好") == "U+4F60 U+597D"
    assert plot.readable("你好吗") == "U+4F60 U+597D…"  # no code point is cut
    png(plot.sampling_bars(np.zeros(2), ["你", "好"], {"温度 1": Sampling()}, title="下一个 token"))
    png(plot.attention_grid(np.eye(2), ["你", "好"], titles=[["第一"]], title="注意力"))
    png(plot.norms_per_layer({"层": 1.0}, title="梯度"))
    png(plot.LiveCurve(title="训练", ylabel="损失", baselines={"二元": 2.0}).finish())


def test_every_label_can_be_drawn():
    figure, ax = plot.subplots()
    ax.set_yticks(range(len(TOKENS)), [plot.readable(token) for token in TOKENS])
    png(figure)


def test_a_cjk_font_is_used_where_one_is_installed(monkeypatch):
    from types import SimpleNamespace

    from matplotlib import font_manager

    fonts = [SimpleNamespace(name="DejaVu Sans"), SimpleNamespace(name="SimHei"), SimpleNamespace(name="PingFang SC")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    plot.cjk_font.cache_clear()
    try:
        assert plot.cjk_font() == "PingFang SC"  # earlier in the list of preferences
    finally:
        plot.cjk_font.cache_clear()


def test_look_inside_returns_the_weights_the_model_used(model, ids):
    inside = plot.look_inside(model, ids)
    assert inside.attention.shape == (2, 3, 4, 10, 10)
    assert inside.residual.shape == (3, 3, 10, 32)
    np.testing.assert_allclose(inside.attention.sum(-1), 1, rtol=1e-5)
    assert not np.triu(inside.attention, 1).any()
    # mixing the values by these weights gives what the block's attention gives
    block = model.blocks[0]
    x = block.norm_1(Tensor(inside.residual[0]))
    _, _, v = block.attn.heads(x)
    mixed = (inside.attention[0] @ v.data).swapaxes(1, 2).reshape(3, 10, 32)
    np.testing.assert_allclose(block.attn.proj(Tensor(mixed)).data, block.attn(x).data, atol=1e-6)
    np.testing.assert_allclose(model.logits(model.norm(Tensor(inside.residual[-1]))).data, model(ids).data, atol=1e-5)
    assert list(inside.activation_sizes()) == ["embedding", "blocks.0", "blocks.1"]
    assert model.training


SHAPE = {"vocab_size": 20, "context": 12, "n_layers": 2, "n_heads": 4, "d_model": 16}
DEEP = {**SHAPE, "d_ff": 24, "dropout": 0.3}
LLAMA = LlamaConfig(**DEEP, n_kv_heads=2, qk_norm=True, tie_embeddings=True)
IDS = np.random.default_rng(3).integers(1, 20, (3, 10))
PADDED = np.where(np.arange(10) < np.array([[10], [6], [3]]), IDS, 0)
MASK = PADDED > 0
LOOKS = {
    "gpt": (GPTConfig(**SHAPE, dropout=0.3), [IDS], {}),
    "llama": (LLAMA, [IDS], {}),
    "bert": (BertConfig(**DEEP), [PADDED], {"mask": MASK, "token_types": IDS % 2}),
    "bert classifier": (BertConfig(**DEEP, head="classification", pad_id=0), [PADDED], {}),
    "encoder-decoder": (EncoderDecoderConfig(**DEEP, pad_id=0), [PADDED, IDS[:, :7]], {}),
    "encoder-decoder pre": (EncoderDecoderConfig(**DEEP, norm="pre"), [IDS, IDS[:, :7]], {}),
    "gpt classifier": (ClassifierConfig(GPTConfig(**SHAPE, dropout=0.3)), [PADDED], {"mask": MASK}),
    "llama classifier": (ClassifierConfig(LLAMA, pad_id=0), [PADDED], {}),
}


@pytest.mark.parametrize("name", LOOKS)
def test_look_inside_every_model(name, monkeypatch):
    """The weights, times the values that went into each call of attention, are what came out of it."""
    config, inputs, options = LOOKS[name]
    model = model_from_config(config, np.random.default_rng(0)).to(np.float64)
    for parameter in model.parameters():
        parameter.data *= 3  # from nearly even weights to uneven ones
    inside = plot.look_inside(model, *inputs, **options)
    assert model.training and not any("forward" in vars(module) for _, module in model.named_modules())

    calls, attention = [], ops.attention

    def recorded(q, k, v, **given):
        out = attention(q, k, v, **given)
        calls.append((v.data, out.data))
        return out

    monkeypatch.setattr(ops, "attention", recorded)
    model.eval()
    h = model.hidden(*inputs, **options)
    looks = list(inside.attention)
    if "encoder" in name:
        assert inside.cross.shape == (2, 3, 4, 7, 10) and inside.stack == "decoder"
        looks = [*inside.encoder.attention, *(x for both in zip(inside.attention, inside.cross) for x in both)]
    else:
        assert inside.cross is None and inside.encoder is None
    assert len(looks) == len(calls)
    for weights, (v, out) in zip(looks, calls):
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
        assert weights.max() - weights.min() > 0.3
        v = np.repeat(v, weights.shape[1] // v.shape[1], axis=1)  # a key/value head for each query head
        np.testing.assert_allclose(weights @ v, out, atol=1e-12)
    assert np.triu(inside.attention, 1).any() == name.startswith("bert")
    assert inside.residual.shape == (3, *inputs[-1].shape, 16)
    if "classifier" not in name:
        last = Tensor(inside.residual[-1])
        norm = {"bert": None, "encoder-decoder": None, "encoder-decoder pre": getattr(model, "decoder_norm", None)}
        norm = norm.get(name, getattr(model, "norm", None))
        np.testing.assert_allclose((last if norm is None else norm(last)).data, h.data, atol=1e-12)
    assert list(inside.activation_sizes())[1:] == [f"{inside.stack}.0", f"{inside.stack}.1"]


def test_nobody_looks_at_padding():
    config, inputs, options = LOOKS["bert"]
    weights = plot.look_inside(model_from_config(config), *inputs, **options).attention
    assert not weights[:, ~MASK[:, None, None, :].repeat(4, 1).repeat(10, 2)].any()


def test_look_inside_refuses_what_has_no_attention(ids):
    for without in (Tensor([1.0]), model_from_config(LSTMConfig(20, 12, 1, 8))):
        with pytest.raises(TypeError, match=f"a {type(without).__name__} has no attention"):
            plot.look_inside(without, ids)


def test_a_look_that_fails_leaves_the_model_as_it_was(model, ids):
    with pytest.raises(ValueError, match="more than the context"):
        plot.look_inside(model, np.zeros((1, 1000), dtype=np.int64))
    assert model.training and not any("forward" in vars(module) for _, module in model.named_modules())


def test_attention_grid(model, ids):
    weights = plot.look_inside(model, ids).attention[:, 0]
    figure = plot.attention_grid(weights, TOKENS, title="where heads look")
    png(figure)
    assert len(figure.axes) == 2 * 4 + 1  # pictures and the colour bar
    png(plot.attention_grid(weights[0, 0]))
    png(plot.attention_grid(np.full((4, 4), 0.25), ["a", "b", "c", "d"], titles=[["all alike"]]))
    with pytest.raises(ValueError, match="choose one sequence"):
        plot.attention_grid(np.zeros((2, 3, 4, 10, 10)))
    with pytest.raises(ValueError, match="9 tokens for 10 positions"):
        plot.attention_grid(weights, TOKENS[:9])


def test_norms(model, ids):
    assert plot.gradient_norms(model) == {}
    model(ids, targets=ids).backward()
    norms = plot.gradient_norms(model)
    assert list(norms)[:3] == ["token_embedding", "position_embedding", "blocks.0.norm_1"]
    fc = model.blocks[0].mlp.fc
    expected = np.sqrt((fc.weight.grad**2).sum() + (fc.bias.grad**2).sum())
    assert norms["blocks.0.mlp.fc"] == pytest.approx(expected, rel=1e-5)
    figure = plot.norms_per_layer(norms, plot.look_inside(model, ids).activation_sizes(), title="at the start")
    png(figure)
    assert len(figure.axes) == 2
    png(plot.norms_per_layer(norms))
    with pytest.raises(ValueError, match="gradient_norms"):
        plot.norms_per_layer()


def test_sampling_bars():
    logits = np.linspace(3, 0, len(TOKENS))
    settings = {"T = 1": Sampling(), "top-k 3": Sampling(top_k=3)}
    figure = plot.sampling_bars(logits, TOKENS, settings, top=5)
    png(figure)
    plain, filtered = figure.axes
    assert plain.texts[-1].get_text() != "×"
    assert [text.get_text() for text in filtered.texts][3:] == ["×", "×"]  # what top-k removed
    assert sum(bar.get_width() for bar in filtered.patches) == pytest.approx(100)
    assert len(plain.patches) == 5
    with pytest.raises(ValueError, match="a label for each"):
        plot.sampling_bars(logits, TOKENS[:3], settings)


def test_live_curve_in_a_terminal_and_in_a_file(monkeypatch, capsys):
    curve = plot.LiveCurve(baselines={"5-gram": 2.0})
    for step in range(5):
        curve.update(step, train=3.0 - step / 10, val=2.5 if step == 4 else None)
    assert capsys.readouterr().out == "step      4  train 2.6000  val 2.5000\n"  # a file: at a validation only
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    curve.update(5, train=2.5)
    assert capsys.readouterr().out.startswith("\rstep      5")
    png(curve.finish())


def test_live_curve_in_a_notebook_updates_one_figure(monkeypatch):
    IPython = pytest.importorskip("IPython")
    shown, updated = [], []

    class Handle:
        def update(self, figure):
            updated.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    curve = plot.LiveCurve(every_seconds=0.0)
    curve.in_notebook = True
    curve.update(0, train=3.0)
    curve.next_draw = 0.0
    curve.update(1, train=2.0, val=2.5)
    figure = curve.finish()
    assert len(shown) == 1 and len(updated) == 2 and updated[-1] is figure


def test_live_curve_without_points():
    png(plot.LiveCurve(title="nothing yet").finish())


def test_graph_is_valid_svg_with_every_tensor():
    a, b = Parameter(2.0), Parameter(-3.0)
    loss = (a * b + a) * a
    loss.backward(retain_graph=True)
    drawing = plot.graph(loss, {"a": a, "b": b, "a<b": loss})
    root = ElementTree.fromstring(drawing.svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a" in texts and "b" in texts and "a<b = ×" in texts
    assert f"grad {a.grad.item():.4g}".replace("-", "−") in texts
    assert drawing._repr_svg_() == drawing.svg
    assert repr(drawing) == "graph of 5 tensors and 6 arrows"


def test_boxes_of_a_graph_do_not_overlap(model, ids):
    boxes, edges = graph_module.collect(model(ids, targets=ids), {})
    graph_module.assign_columns(boxes)
    for left, right in edges:
        assert left.column < right.column
    columns = graph_module.add_bends(boxes, edges)
    graph_module.order_columns(columns)
    graph_module.place(columns)
    for column in columns:
        for upper, lower in itertools.pairwise(column):
            assert upper.y + upper.height / 2 < lower.y - lower.height / 2


def test_graph_of_a_leaf_and_of_too_much():
    assert "1×3" in plot.graph(Tensor(np.zeros((1, 3)))).svg
    x = Parameter(1.0)
    for _ in range(200):
        x = x + 1.0
    with pytest.raises(ValueError, match="smaller part"):
        plot.graph(x)


def test_token_spans_escape_html_and_show_what_is_invisible():
    picture = plot.token_spans(TOKENS, range(len(TOKENS)), title="a & b")
    assert picture.text == "␣the|cat|你|↵|$a$|E4·BD|␣sat|U+0007|<b>|&"
    assert "&lt;b&gt;" in picture.html and "<b>" not in picture.html and "a &amp; b" in picture.html
    ElementTree.fromstring(picture.html.replace("<br>", "<br/>"))
    assert repr(picture) == picture.text and picture._repr_html_() == picture.html
    with pytest.raises(ValueError, match="one for each"):
        plot.token_spans(TOKENS, [1])


def test_a_mask_colours_the_tokens_that_train_and_no_others():
    picture = plot.token_spans(["Hi", " you", "!"], mask=[False, True, False])
    boxes = picture._repr_html_().split("<span ")[1:]
    assert ["border:3px" in box for box in boxes] == [False, True, False]
    assert ["#F2F2F2" in box for box in boxes] == [True, False, True]
    assert repr(picture) == "Hi|[␣you]|!"
    with pytest.raises(ValueError, match="1 places of the mask for 3 pieces"):
        plot.token_spans(["Hi", " you", "!"], mask=[True])


def test_merge_replay_marks_what_is_new():
    states = [[b"t", b"h", b"e", b" ", b"t", b"h", b"e"], [b"t", b"he", b" ", b"t", b"he"], [b"the", b" ", b"t", b"he"]]
    picture = plot.merge_replay(states)
    assert picture.text.splitlines() == ["start: t|h|e|␣|t|h|e", "h + e: t|he|␣|t|he", "t + he: the|␣|t|he"]
    assert picture.html.count("3px solid") == 3
    ElementTree.fromstring(f"<div>{picture.html}</div>")
    assert len(plot.merge_replay(states, longest=2).text.splitlines()) == 2
    assert plot.merge_replay([]).text == ""
    for wrong in ([b"t", b"h"], [b"x"], [b"ht", b"e"]):
        with pytest.raises(ValueError, match="neighbours joined"):
            plot.merge_replay([[b"t", b"h", b"e"], wrong])


def test_merge_replay_of_a_tokenizer():
    tokenizer = BPETokenizer.train(["low lower lowest low slow"], vocab_size=261)
    steps = [[tokenizer.token_bytes(i) for i in ids] for ids in merge_steps(tokenizer, "slow")]
    assert plot.merge_replay(steps).text.splitlines() == ["start: s|l|o|w", "l + o: s|lo|w", "lo + w: s|low"]


def test_a_grid_of_many_heads_has_short_titles():
    figure = plot.attention_grid(np.tile(np.eye(3), (4, 8, 1, 1)))
    png(figure)
    assert figure.axes[1].get_title() == "head 1" and figure.axes[8].get_ylabel() == "layer 1"


def test_the_running_mean_does_not_lag():
    falling = np.linspace(5, 1, 400)
    np.testing.assert_allclose(running_mean(falling), falling)
    assert running_mean(np.array([3.0])) == 3.0

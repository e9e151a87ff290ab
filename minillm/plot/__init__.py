"""Pictures for the chapters, and for looking at your own runs: each function returns its figure.

Matplotlib figures (`figure.savefig("x.png")` works), or SVG and HTML that a notebook shows without any program or
network. Colours are those of Okabe & Ito and viridis, which colour-blind readers can tell apart. Matplotlib is
imported when the first figure is drawn, never by `import minillm`. Read style.py first, then in any order:
curves.py (training as it happens, norms per layer), runs.py (the losses of several runs), attention.py (where heads
look), computation.py (the graph behind a Tensor), tokens.py (text cut into tokens), sampling.py (the choice of the next
token), tiles.py (what flash attention computes).
"""

from ..interpret import Inside, look_inside
from .attention import attention_grid
from .computation import graph
from .curves import LiveCurve, gradient_norms, norms_per_layer
from .runs import loss_of_runs
from .sampling import sampling_bars
from .style import BLACK, BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, cjk_font, readable, subplots
from .tiles import tiles_visited
from .tokens import Html, merge_replay, token_spans

__all__ = [
    "BLACK", "BLUE", "CYCLE", "GREEN", "ORANGE", "PURPLE", "SKY", "VERMILION", "YELLOW",
    "Html", "Inside", "LiveCurve", "attention_grid", "cjk_font", "gradient_norms", "graph", "look_inside",
    "loss_of_runs", "merge_replay", "norms_per_layer", "readable", "sampling_bars", "subplots", "tiles_visited",
    "token_spans",
]  # fmt: skip

"""Looking inside a model of either engine: what its parts say, what they do, and the methods made of these two.

Read in this order: activations.py (record and replace by a module's name), looking.py (attention and the stream between
blocks in one run), lens.py (what each layer would answer), heads.py (rollout, induction heads), patching.py (what an
activation does), probing.py (what can be read from it), likelihood.py (what the whole thinks of a text). Arrays go in
and come out.

A recording shows that something is there, not that the model uses it; only a replacement shows that. A picture of
attention says where a head looks, not what it takes there. chapters/18_looking_inside.ipynb shows both on models whose
algorithm is known in the end.
"""

from .activations import Call, recording, replacing, run, watching
from .heads import attended_share, attention_rollout, induction_scores, repeated_rows, what_followed
from .lens import Lens, logit_lens
from .likelihood import continuations, log_likelihoods
from .looking import Inside, attention_shares, look_inside
from .patching import activation_patching
from .probing import Probe, probe

__all__ = [
    "Call", "Inside", "Lens", "Probe", "activation_patching", "attended_share", "attention_rollout", "attention_shares",
    "continuations", "induction_scores", "log_likelihoods", "logit_lens", "look_inside", "probe", "recording",
    "repeated_rows", "replacing", "run", "watching", "what_followed",
]  # fmt: skip

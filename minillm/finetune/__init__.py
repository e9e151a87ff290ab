"""Fine-tuning: change a pretrained model, train what should change on a task's examples, measure it.

Read in this order: objectives.py (how an example becomes a batch, and an answer again), heads.py (a new head on a
pretrained body), freeze.py (which parameters learn, and how fast), lora.py (low-rank adapters beside frozen layers),
quantize.py (those layers in 4 or 8 bits, on PyTorch), data.py (what the training loop is given), predict.py, scores.py,
and run.py, which puts them together; config.py, splits.py and report.py are what goes in and comes out. Adapters go to
files and back in hub/adapters.py.
"""

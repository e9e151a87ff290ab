"""Fine-tuning: change a pretrained model, and train only what should change.

Read in this order: freeze.py (which parameters learn, and how fast), lora.py (low-rank adapters beside frozen layers),
quantize.py (those layers in 4 or 8 bits, on PyTorch). Adapters go to files and back in hub/adapters.py.
"""

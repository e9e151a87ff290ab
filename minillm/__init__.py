"""minillm: learn how a language model works in NumPy, then train one for real with the same code.

Read in this order: tensor.py (the graph and backward), tensor_methods.py and numpy_ops (forwards beside backwards),
ops.py (the ops by name, for every engine), nn.py (layers), models/gpt.py (the model), tokenizers/bpe.py,
optim.py, train.py, generate.py.
"""

__version__ = "0.1.0"

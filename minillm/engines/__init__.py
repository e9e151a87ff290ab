"""Engines: what trains a model, behind one protocol.

Read in this order: protocol.py (what the training loop asks for), numpy_engine.py (all of it, a few lines each),
threads.py with memory.py (several cores), torch_engine.py with torch_machine.py and read_ahead.py (a GPU,
or many processes), choose.py (the one that a config names). recompute.py has layers computed twice, to save memory.
shards.py reads the parts of a checkpoint that several processes have written, torch_shards.py writes them. sgd.py,
muon.py and torch_optimizers.py are optimizers besides AdamW; speculative.py is for writing: one model guesses, another
reads.
"""

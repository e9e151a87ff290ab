"""Training: from batches to a run folder with a trained model.

Read in this order: train.py (the loop) with protocol.py (what it asks of data), schedules.py and objectives.py (what it
follows and asks), evaluate.py, run_folder.py, saving.py and checkpoint.py (what is kept), run_log.py (what is said),
interrupt.py and diagnose.py (when it stops), pretrain.py and config_file.py (a whole run from a TOML file; presets/ has
some), baselines.py (what has to be beaten).
"""

"""From a base model to an assistant: conversations as ids with a mask, and what is trained on them.

Read in this order. What a conversation is to a model: template.py (one text, by a program in Jinja), sandbox.py (such
programs come from strangers: their limits), conversations.py (the text as ids, and which of them the assistant says),
vocabulary.py (the tokens that a base model lacks). Learning to answer: rows.py (ids and targets), data.py (what `train`
takes), packing.py (several in a row), answers.py (what a model says). Learning which answer is better: pairs.py,
preferences.py (DPO, IPO, KTO, ORPO, SimPO), reference.py (what the model thought before), reward.py (a judge). Learning
from rewards: grpo.py (the loss, and why it begins at 0), rollouts.py, rewards.py. Learning from another model:
distill.py, distill_data.py. Around them: config.py, splits.py, run.py, report.py. templates/chatml.jinja is the
template for models that have none; recipes/ holds the settings that the command begins with.

The losses are derived, and tried on a model of a minute, in chapters/13_dialogue.ipynb.
"""

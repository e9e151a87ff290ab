"""From a base model to an assistant: conversations as ids with a mask, and what is trained on them.

Read in this order: template.py (a conversation as one text, by a program in Jinja), sandbox.py (such programs come from
strangers: their limits), conversations.py (the text as ids, and which of them the assistant says), vocabulary.py (the
tokens that a base model lacks). templates/chatml.jinja is the template for models that have none.
"""

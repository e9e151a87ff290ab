"""Built-in tasks."""

from . import code, sentiment, summarization, translation

TASKS = {"sentiment": sentiment, "translation": translation, "code": code, "summarization": summarization}

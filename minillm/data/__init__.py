"""Data: from files on a disk to batches of token ids.

Read in this order: documents.py (what a document is), reading.py and folders.py (files and folders), opening.py (bytes
to text), a file for each form: rows.py and columns.py, parquet.py, web.py, archives.py, wiki.py and wikitext.py; then
stdlib.py (the corpus that every machine has), clean.py, licences.py, stopwords.py and pii.py (what is changed in a
text), scripts.py (what a word is in which script), sentences.py (which lines read like one), shingles.py and dedup.py
(copies and near copies), split.py (train and validation, and leaks between them), divide.py (few documents), corpus.py,
per_document.py and build.py (the whole pipeline), packing.py (token files), batches.py (what training and evaluation
are fed).

For fine-tuning on the user's own files: records.py and fields.py (rows, columns, values), examples.py (labelled texts,
pairs, chats, preferences), labels.py (classes), copies.py and example_split.py (splits that don't leak), synonyms.py
and augment.py (texts changed a little), example_batches.py (what fine-tuning is fed). tasks/ makes tasks.
"""

from .augment import Augmentation, back_translate
from .batches import Batcher, count_targets, iter_eval_batches, require_targets
from .build import build_corpus
from .clean import RepeatedLines, clean_text
from .corpus import CorpusConfig, CorpusReport, corpus_documents, corpus_folder, corpus_text, load_report, split_file
from .dedup import MinHash, NearDuplicates, deduplicate
from .documents import Document, Dropped, check_half_pairs, cut_document, first_bytes, read_jsonl
from .example_batches import ExampleBatcher, fingerprint, pad
from .example_split import ExampleSplit, Leak, check_leak, find_leaks, split_examples
from .examples import (
    Chat,
    Examples,
    Labelled,
    Pair,
    Preference,
    Prompt,
    Skipped,
    read_chats,
    read_labelled,
    read_pairs,
    read_preferences,
    read_prompts,
)
from .folders import kinds_skipped
from .labels import check_labels, label_names
from .packing import TokenDataset, pack, pack_split
from .pii import find_pii, scrub
from .reading import read_documents
from .records import read_table
from .rows import BadRecord
from .split import Contamination, contamination, split_of
from .stdlib import docstrings, documents_fingerprint, environment_documents, stdlib_documents
from .stopwords import remove_stop_words
from .synonyms import our_synonyms, read_synonyms
from .wiki import wiki_documents

__all__ = [
    "Augmentation",
    "BadRecord",
    "Batcher",
    "Chat",
    "Contamination",
    "CorpusConfig",
    "CorpusReport",
    "Document",
    "Dropped",
    "ExampleBatcher",
    "ExampleSplit",
    "Examples",
    "Labelled",
    "Leak",
    "MinHash",
    "NearDuplicates",
    "Pair",
    "Preference",
    "Prompt",
    "RepeatedLines",
    "Skipped",
    "TokenDataset",
    "back_translate",
    "build_corpus",
    "check_half_pairs",
    "check_labels",
    "check_leak",
    "clean_text",
    "contamination",
    "corpus_documents",
    "corpus_folder",
    "corpus_text",
    "count_targets",
    "cut_document",
    "deduplicate",
    "docstrings",
    "documents_fingerprint",
    "environment_documents",
    "find_leaks",
    "find_pii",
    "fingerprint",
    "first_bytes",
    "iter_eval_batches",
    "kinds_skipped",
    "label_names",
    "load_report",
    "our_synonyms",
    "pack",
    "pack_split",
    "pad",
    "read_chats",
    "read_documents",
    "read_jsonl",
    "read_labelled",
    "read_pairs",
    "read_preferences",
    "read_prompts",
    "read_synonyms",
    "read_table",
    "remove_stop_words",
    "require_targets",
    "scrub",
    "split_examples",
    "split_file",
    "split_of",
    "stdlib_documents",
    "wiki_documents",
]

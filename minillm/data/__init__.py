"""Data: from files on a disk to batches of token ids.

Read in this order: documents.py and folders.py (what a document is, reading files), stdlib.py (the corpus that every
machine has), clean.py and stopwords.py (what is changed in a text), shingles.py and dedup.py (copies and near copies),
split.py (train and validation, and leaks between them), corpus.py and build.py (the whole pipeline), packing.py (token
files), batches.py (what training and evaluation are fed). examples.py says what a task's data consists of, and
tasks/ makes tasks.
"""

from .batches import Batcher, count_targets, iter_eval_batches, require_targets
from .build import build_corpus
from .clean import RepeatedLines, clean_text
from .corpus import CorpusConfig, CorpusReport, corpus_documents, corpus_folder, corpus_text, load_report, split_file
from .dedup import MinHash, NearDuplicates, deduplicate
from .documents import Document, Dropped, check_half_pairs, read_documents, read_jsonl
from .folders import kinds_skipped
from .packing import TokenDataset, pack, pack_split
from .split import Contamination, contamination, split_of
from .stdlib import docstrings, documents_fingerprint, environment_documents, stdlib_documents
from .stopwords import remove_stop_words

__all__ = [
    "Batcher",
    "Contamination",
    "CorpusConfig",
    "CorpusReport",
    "Document",
    "Dropped",
    "MinHash",
    "NearDuplicates",
    "RepeatedLines",
    "TokenDataset",
    "build_corpus",
    "check_half_pairs",
    "clean_text",
    "contamination",
    "corpus_documents",
    "corpus_folder",
    "corpus_text",
    "count_targets",
    "deduplicate",
    "docstrings",
    "documents_fingerprint",
    "environment_documents",
    "iter_eval_batches",
    "kinds_skipped",
    "load_report",
    "pack",
    "pack_split",
    "read_documents",
    "read_jsonl",
    "remove_stop_words",
    "require_targets",
    "split_file",
    "split_of",
    "stdlib_documents",
]

"""Datasets: what is sent to a server, described, built from a seed, and stored once."""

from memgap.datasets.build import Prompt, build_dataset, warmup_prompts
from memgap.datasets.files import StoredDataset, dataset_path, load_dataset, save_dataset
from memgap.datasets.sharegpt import source_files
from memgap.datasets.spec import resolve_dataset
from memgap.datasets.stored import store_dataset

__all__ = [
    "Prompt",
    "StoredDataset",
    "build_dataset",
    "dataset_path",
    "load_dataset",
    "resolve_dataset",
    "save_dataset",
    "source_files",
    "store_dataset",
    "warmup_prompts",
]

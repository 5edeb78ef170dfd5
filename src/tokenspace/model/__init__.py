"""A small decoder over the input embedding, its attention, and text from it."""

from tokenspace.model.attention import KeyValueCache, Prepared, attend
from tokenspace.model.language_model import LanguageModel, ModelConfig
from tokenspace.model.memory import SegmentMemory

__all__ = ["KeyValueCache", "LanguageModel", "ModelConfig", "Prepared", "SegmentMemory", "attend"]

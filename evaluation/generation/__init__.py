"""Text from a language model: batches of prompts of any lengths, with a key-value cache."""

from evaluation.generation.decoding import Agree, Generated, Observe, Piece, generate, stream
from evaluation.generation.sampling import Sampling

__all__ = ["Agree", "Generated", "Observe", "Piece", "Sampling", "generate", "stream"]

"""Who goes where: the tokens of a text joined with the experts that a trained model sent them to.

Importing it is quick: what takes seconds (torch) is imported when it is needed.
"""

from evaluation.tokens.analysis import analyse

__all__ = ["analyse"]

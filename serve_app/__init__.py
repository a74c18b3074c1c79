"""tierwise: answer easy requests on a small model and hard ones on a large one, behind one OpenAI-compatible endpoint."""

__version__ = "0.1.0"

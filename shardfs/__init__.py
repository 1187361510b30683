"""Version control for AI models and datasets that can be mounted."""

__version__ = "0.1.0"

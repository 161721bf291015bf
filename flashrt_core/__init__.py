"""FlashRT core: model pipelines and kernels behind `load_model(...).predict(images, prompt)`."""

from .version import __version__

__all__ = ["__version__"]

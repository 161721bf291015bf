"""FlashRT core: model pipelines and kernels behind `load_model(...).predict(images, prompt)`."""

from .api import VLAModel, load_model
from .version import __version__

__all__ = ["VLAModel", "__version__", "load_model"]

"""The transformers side: `AutoImageProcessor` keeps to the input contract of a published folder.

Models need nothing here: folders are in timm's layout, which transformers wraps by itself. Its
image processor can only approximate a contract. `registration` imports this module right after
the configuration class of timm's layout; from then on a folder with a contract gets
`CxrImageProcessor`, and every other folder or repository the stock class.
"""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoImageProcessor
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.timm_wrapper.configuration_timm_wrapper import TimmWrapperConfig
from transformers.utils import logging

from cxr_foundation.contract import InputContract
from cxr_foundation.errors import ContractError
from cxr_foundation.images.processor import Processor

__all__ = ["CxrImageProcessor"]

logger = logging.get_logger(__name__)

_OURS = "cxr_foundation"


class CxrImageProcessor(BaseImageProcessor):
    """Prepares radiographs by the input contract of a checkpoint.

    Args:
        contract: The contract as `InputContract.to_dict` writes it.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  (as the base class has it)

    def __init__(self, contract: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = contract
        self._processor = Processor(InputContract.from_dict(contract))
        height, width = self._processor.contract.size
        self.size = {"height": height, "width": width}

    @classmethod
    def from_pretrained(  # type: ignore[override]  # another class for a foreign repository
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> BaseImageProcessor:
        """The processor of a folder or repository: by its contract, else the stock class.

        Raises:
            ContractError: The contract is invalid, or too incomplete to prepare pixels by.
        """
        place = {"image_processor_filename": "config.json", **kwargs}
        config, _ = cls.get_image_processor_dict(pretrained_model_name_or_path, **place)
        ours = config.get(_OURS)
        if not isinstance(ours, dict) or "contract" not in ours:
            from transformers import TimmWrapperImageProcessor

            return TimmWrapperImageProcessor.from_pretrained(
                pretrained_model_name_or_path, **kwargs
            )
        if not isinstance(ours["contract"], dict):
            raise ContractError(
                f"{pretrained_model_name_or_path}: config.json", "its contract is not an object"
            )
        return cls(contract=ours["contract"])

    def preprocess(
        self, images: Any, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Prepare radiographs.

        Args:
            images: Paths (DICOM, PNG, JPEG, TIFF), arrays, Pillow images or tensors; one or a list.
            return_tensors: Only "pt".
            **kwargs: Ignored: the contract leaves nothing to choose.

        Returns:
            "pixel_values": float32 (B, C, H, W).

        Raises:
            ImageError: A radiograph that cannot be used.
        """
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors must be 'pt', not {return_tensors!r}")
        return BatchFeature(self._processor(images))

    def to_dict(self) -> dict[str, Any]:
        """The contract, without what is computed from it."""
        return {"contract": self.contract}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> list[str]:
        """Write nothing: the contract is in the `config.json` that the model saves.

        A `preprocessor_config.json` would name this class, and the folder would need this package.
        """
        logger.warning_once("The input contract is saved in config.json, with the model.")
        return []


AutoImageProcessor.register(
    TimmWrapperConfig,
    image_processor_classes={"torchvision": CxrImageProcessor, "pil": CxrImageProcessor},
    exist_ok=True,
)

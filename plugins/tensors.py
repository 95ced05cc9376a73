"""Numbers for models that read no words (imaging, pathology, risk scores), as the Open Inference Protocol has them.

Source: Open Inference Protocol v2, "Tensor Data" and "Tensor Data Types" (KServe, Triton, MLServer and others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input.

    Attributes:
        name: as the model's metadata calls it.
        shape: its dimensions.
        datatype: of each element; text is BYTES.
        data: the elements in row-major order, flat.

    Raises:
        ValueError: there are not as many elements as the shape has, or the datatype is none of the protocol's.
    """

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: Sequence[bool | int | float | str]

    def __post_init__(self) -> None:
        if self.datatype not in get_args(Datatype):
            raise ValueError(f"tensor {self.name!r}: datatype must be one of {', '.join(get_args(Datatype))}")
        if len(self.data) != prod(self.shape):
            raise ValueError(
                f"tensor {self.name!r}: shape {list(self.shape)} has {prod(self.shape)} elements, data {len(self.data)}"
            )

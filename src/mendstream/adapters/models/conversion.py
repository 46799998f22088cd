"""What was learnt, written as an ONNX file: three operators, the same that skl2onnx writes for such a pipeline.

Written by hand because skl2onnx imports a converter for everything in scikit-learn: 35 MB and half a second of every
training, when memory and time to heal are shortest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mendstream.contracts.models import Array

INPUT = "features"
OUTPUT = "probabilities"
_ML = "ai.onnx.ml"
_IR_VERSION = 10
_OPSETS = {"": 22, _ML: 1}
"""What ONNX Runtime has read for years; the newest would keep a model from an older one."""


class Learnt(NamedTuple):
    """Of each feature: what stands for a missing value, what is taken off, what it is multiplied by, how it weighs."""

    fill: Array
    offset: Array
    scale: Array
    weights: Array
    bias: float


def to_onnx(learnt: Learnt) -> bytes:
    """float32 [rows, features] in; [rows, 2] out: the probabilities of the two classes."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info

    nodes = [
        helper.make_node(
            "Imputer", [INPUT], ["filled"], domain=_ML,
            imputed_value_floats=_floats(learnt.fill), replaced_value_float=float("nan"),
        ),
        helper.make_node(
            "Scaler", ["filled"], ["scaled"], domain=_ML, offset=_floats(learnt.offset), scale=_floats(learnt.scale)
        ),
        helper.make_node(
            "LinearClassifier", ["scaled"], ["label", OUTPUT], domain=_ML,
            classlabels_ints=[0, 1], multi_class=0, post_transform="LOGISTIC",
            coefficients=[*_floats(-learnt.weights), *_floats(learnt.weights)], intercepts=[-learnt.bias, learnt.bias],
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "logistic regression",
        [value(INPUT, TensorProto.FLOAT, [None, len(learnt.weights)])],
        [value("label", TensorProto.INT64, [None]), value(OUTPUT, TensorProto.FLOAT, [None, 2])],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(graph, producer_name="mendstream", ir_version=_IR_VERSION, opset_imports=opsets)
    return bytes(model.SerializeToString())


def _floats(values: Iterable[float]) -> Sequence[float]:
    return [float(value) for value in values]

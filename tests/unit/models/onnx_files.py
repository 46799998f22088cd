"""Small ONNX files built by hand, right ones and wrong ones."""

from __future__ import annotations

from onnx import TensorProto, helper


def linear(width: int = 3, *, columns: int = 2, sigmoid: bool = True, rows: int | None = None, kind: int = 1) -> bytes:
    """A linear model: probabilities of shape [rows, columns], or [rows] for `columns` = 0."""
    shape = [width, max(columns, 1)]
    weights = helper.make_tensor("w", kind, shape, [0.5] * (shape[0] * shape[1]))
    bias = helper.make_tensor("b", kind, [1], [4.0])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["s"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["s"], ["p" if columns else "q"]),
    ]
    if not columns:
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
        nodes += [
            helper.make_node("Constant", [], ["axes"], value=axes),
            helper.make_node("Squeeze", ["q", "axes"], ["p"]),
        ]
    inputs = [helper.make_tensor_value_info("x", kind, [rows, width])]
    return _model(nodes, inputs, [("p", [rows, columns] if columns else [rows])], [weights, bias], kind)


def two_inputs() -> bytes:
    inputs = [helper.make_tensor_value_info(name, 1, [None, 3]) for name in ("x", "y")]
    return _model([helper.make_node("Add", ["x", "y"], ["p"])], inputs, [("p", [None, 3])], [], 1)


def labels_only() -> bytes:
    inputs = [helper.make_tensor_value_info("x", 1, [None, 3])]
    nodes = [helper.make_node("Cast", ["x"], ["p"], to=TensorProto.INT64)]
    return _model(nodes, inputs, [("p", [None, 3])], [], TensorProto.INT64)


def _model(nodes: list, inputs: list, outputs: list, weights: list, kind: int) -> bytes:
    named = [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs]
    graph = helper.make_graph(nodes, "by hand", inputs, named, initializer=weights)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()

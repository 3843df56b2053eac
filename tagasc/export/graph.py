"""A thin layer over ``onnx.helper``: nodes in order, constants from arrays, and torch's plain layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET, IR_VERSION = 18, 9  # of 2023, so that onnxruntime need not be new
MOST_BYTES = 2**30  # of weights inside the file; protobuf ends at 2 GiB
_FLOAT = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.int64: TensorProto.INT64}


class Graph:
    """An ONNX graph under construction; a value is the name of a node's output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output, and return the output."""
        output = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: Any, kind: type = np.float32) -> str:
        """Return a constant: an array, a number, or a list of whole numbers (``kind=np.int64``)."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(
            numpy_helper.from_array(np.ascontiguousarray(value, kind).reshape(np.shape(value)), name)
        )
        return name

    def integers(self, *values: int) -> str:
        """Return a constant list of whole numbers, such as axes or a shape."""
        return self.constant(list(values), np.int64)

    def rename(self, value: str, name: str) -> str:
        """Give a value the name under which the model returns it."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        return name

    def concat(self, *values: str, axis: int = 1) -> str:
        """Concatenate values along an axis."""
        return self.add("Concat", *values, axis=axis)

    def cast(self, value: str, kind: type) -> str:
        """Convert a value to another type."""
        return self.add("Cast", value, to=_FLOAT[kind])

    def slice(self, value: str, start: int, end: int, axis: int) -> str:
        """Cut ``start`` to ``end`` out of one axis."""
        return self.add("Slice", value, *(self.integers(number) for number in (start, end, axis)))

    def layers(self, value: str, *modules: nn.Module) -> str:
        """Apply torch's layers in evaluation mode; batch normalisation must be folded in."""
        for module in modules:
            value = self._layer(value, module)
        return value

    def _layer(self, value: str, module: nn.Module) -> str:
        if isinstance(module, nn.Sequential):
            return self.layers(value, *module)
        if isinstance(module, nn.Identity | nn.Dropout):
            return value
        if isinstance(module, nn.Linear):
            bias = () if module.bias is None else (self.constant(array(module.bias)),)
            return self.add("Gemm", value, self.constant(array(module.weight)), *bias, transB=1)
        if isinstance(module, nn.Conv2d):
            bias = () if module.bias is None else (self.constant(array(module.bias)),)
            pads = [*module.padding, *module.padding]
            return self.add(
                "Conv", value, self.constant(array(module.weight)), *bias, strides=list(module.stride), pads=pads
            )
        if isinstance(module, nn.ReLU):
            return self.add("Relu", value)
        if isinstance(module, nn.LeakyReLU):
            return self.add("LeakyRelu", value, alpha=module.negative_slope)
        if isinstance(module, nn.MaxPool2d):
            size, stride, padding = (module.kernel_size, module.stride, module.padding)
            return self.add("MaxPool", value, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[padding] * 4)
        raise TypeError(f"no ONNX form of {type(module).__name__}")

    def model(self, inputs: dict[str, Sequence], outputs: dict[str, tuple[type, Sequence]]) -> onnx.ModelProto:
        """Build and check the model.

        Args:
            inputs: shape of each input, float32; names of free dimensions are text.
            outputs: type and shape of each output.
        """
        graph = helper.make_graph(
            self._nodes,
            "tagasc",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, _FLOAT[kind], shape) for name, (kind, shape) in outputs.items()],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tagasc")


def array(value: Any) -> np.ndarray:
    """Return a tensor's values as an array in the usual order of memory."""
    return np.ascontiguousarray(value.detach().cpu().numpy())


def write_model(path: Path, model: onnx.ModelProto) -> None:
    """Write a model; weights beyond ``MOST_BYTES`` go into a file beside it, ``<name>.data``."""
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > MOST_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        path.write_bytes(model.SerializeToString())

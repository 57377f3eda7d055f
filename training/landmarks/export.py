"""Write the trained regressor as ONNX: batch normalisation folded, weights in float16, arithmetic in float32."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from training.landmarks.network import Exported, Regressor

OPSET = 17


def export(regressor: Regressor, path: Path, licence: str = "Apache-2.0") -> None:
    """Input `input` (n, 3, 64, 64) float32; output `landmarks` (n, 19) float32; n is free."""
    torch.onnx.export(
        Exported(regressor).eval(),
        (torch.zeros(2, 3, 64, 64),),
        path,
        input_names=["input"],
        output_names=["landmarks"],
        dynamic_axes={"input": {0: "n"}, "landmarks": {0: "n"}},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(path)
    _halve_weights(model.graph)
    model.producer_name, model.producer_version, model.doc_string = "arcface-api", "", "Five landmarks of a face crop"
    for key, value in (("licence", licence), ("source", "training/landmarks")):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Store weights as float16 and cast them when the model is loaded: half the file for one part in 2000."""
    casts = []
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or int(np.prod(weight.dims)) < 256:
            continue
        halved = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}_float16")
        casts.append(helper.make_node("Cast", [halved.name], [weight.name], to=TensorProto.FLOAT))
        graph.initializer.remove(weight)
        graph.initializer.append(halved)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

"""Promises of docs/sizing.md: its computed rates follow from the model's graph and from what was measured."""

import math

import pytest
from onnx import shape_inference

import performance_tables
import sizing_tables
from benchmarks.lib import iresnet


def test_the_counts_are_those_of_the_graph() -> None:
    model = iresnet.build()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model).graph
    sizes = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input)
    }
    values = sum(sizes[node.input[0]] + sizes[node.output[0]] for node in model.graph.node if node.op_type == "Conv")
    assert values == sizing_tables.CONVOLUTION_VALUES
    assert sum(math.prod(weight.dims) for weight in model.graph.initializer) == sizing_tables.WEIGHTS


def test_a_face_alone_reads_all_weights_and_one_in_a_batch_its_share() -> None:
    weights = sizing_tables.WEIGHTS * 2
    assert sizing_tables.bytes_per_face(1) - sizing_tables.bytes_per_face(8) == pytest.approx(weights * 7 / 8)


@pytest.mark.parametrize("rate", [20.0, 2000.0])
def test_computed_rates_are_the_lower_of_cores_and_memory(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cores a hundred times as fast, the memory is the limit everywhere."""
    report = {"machine": {"cpus": 2}, "service": {"1": {"faces_per_second": 1.0}, "16": {"faces_per_second": 2 * rate}}}
    monkeypatch.setattr(sizing_tables, "read", lambda _: report)
    rows = [row.strip("| ").split(" | ") for row in sizing_tables.rates().splitlines()[2:]]
    assert [row[0] for row in rows] == ["2", "4", "16", "64", "2 sockets of 64"]
    for row in rows:
        from_cores, *from_memory, full, single = (float(figure.replace(",", "")) for figure in row[2:])
        assert [full, single] == [min(from_cores, bound) for bound in from_memory]
    assert float(rows[0][2].replace(",", "")) == 2 * rate
    assert (rows[0][5] == rows[0][2]) is (rate == 20)


def test_the_price_of_a_million_faces_is_that_of_the_core_hours_they_take() -> None:
    """10 faces/s on 2 cores: 18,000 faces per core-hour, so a million faces take 55.6 core-hours."""
    faces = performance_tables.faces_per_core_hour(10, 2)
    assert faces == 18_000
    assert performance_tables.price_per_million(faces, 0.05) == pytest.approx(2.78, abs=0.005)

"""Draws what `peers.py` measured: throughput against latency.

python plot.py REPORT.json PLOT.png
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

report, plot = Path(sys.argv[1]), Path(sys.argv[2])
found = json.loads(report.read_text())
figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
services = {name: peer for name, peer in found["peers"].items() if "p99_ms" in peer["loads"].get("1", {})}
for number, (name, peer) in enumerate(services.items()):
    loads = [load for load in peer["loads"].values() if "p99_ms" in load]
    is_own = name == "arcface-api"
    colour = "black" if is_own else plt.get_cmap("tab10")(number)
    style = "-" if is_own else "--" if peer["engine"] == "own" else ":"
    x, y = [load["faces_per_second"] for load in loads], [load["p99_ms"] for load in loads]
    axes.plot(x, y, style, color=colour, linewidth=2.5 if is_own else 1.5, label=name)
    axes.plot(x[:1], y[:1], "o", color=colour, markersize=6)
    axes.plot(x[1:], y[1:], "D", color=colour, markersize=8)
for name, dash in (("bare", "--"), ("bare-onnxruntime", ":")):
    for load, figures in found["peers"].get(name, {"loads": {}})["loads"].items():
        rate = figures["faces_per_second"]
        axes.axvline(rate, color="grey", linestyle=dash, linewidth=1)
        axes.text(
            rate, 0.99, f"{name}, {load}", transform=axes.get_xaxis_transform(),
            rotation=90, ha="right", va="top", fontsize=8, color="grey",
        )  # fmt: skip
axes.set(
    xscale="log", yscale="log", xlabel="faces a second  (right is better)", ylabel="p99 latency, ms  (down is better)"
)
axes.set_title(
    f"{found['recogniser']['name']}, {found['machine']['cpus']} CPUs ({found['machine']['processor']}), "
    f"medians of {found['rounds']} rounds\n"
    "●  1 client    ◆  16 clients    dashed: given our session    dotted: ONNX Runtime as it comes",
    fontsize=10,
)
for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axis.set_minor_formatter(mpl.ticker.LogFormatter(minor_thresholds=(2, 0.5)))
axes.grid(visible=True, which="both", alpha=0.2)
axes.legend(fontsize=9)
figure.savefig(plot, dpi=150)

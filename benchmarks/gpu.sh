#!/bin/sh
# The whole GPU part in one command, on a machine with an NVIDIA card:
#
#     benchmarks/gpu.sh [OUTPUT.json [OPTION of gpu.py] …]
#
# Makes the environment with CUDA's libraries (about 2.7 GB), builds an IResNet100 with random weights, and measures the bare session
# at batch 1, 8 and 64 in float32 and float16, then the service with /embed and /embed/batch, in 1, 2 and 4 processes. Refuses to
# measure where the GPU is not really used.
set -eu
cd "$(dirname "$0")/.."
output=${1:-benchmarks/results/gpu.json}
test $# -eq 0 || shift
make run-environment DEVICE=cuda
mkdir -p build
test -f build/iresnet100.onnx || .venv-cuda/bin/python -m benchmarks.lib.iresnet build/iresnet100.onnx
exec .venv-cuda/bin/python -m benchmarks.questions.gpu build/iresnet100.onnx --output "$output" "$@"

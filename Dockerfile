# arcface-api. DEVICE=cpu (default) or cuda chooses the build of ONNX Runtime; see compose.yaml and compose.cuda.yaml.
FROM python:3.12-slim-bookworm AS build
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/ requirements/
RUN python3 -m venv /opt/arcface-api \
    && /opt/arcface-api/bin/pip install --quiet --no-deps --require-hashes --requirement "requirements/$DEVICE.txt"
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --no-deps --require-hashes --requirement requirements/build.txt
# Only OpenVINO's CPU plugin and ONNX reader are needed: without the others the image is 72 MB smaller.
RUN find /opt/arcface-api -path '*/openvino/libs/*' \( -name '*_intel_gpu_*' -o -name '*_intel_npu_*' -o -name cache.json \
        -o -name '*_paddle_*' -o -name '*_pytorch_*' -o -name '*_tensorflow*' -o -name '*_jax_*' -o -name '*_gguf_*' \) -delete
COPY pyproject.toml README.md LICENSE ./
COPY src/ src/
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/arcface-api/bin/pip install --quiet --no-deps /opt/wheel/*.whl \
    && /opt/arcface-api/bin/pip uninstall --quiet --yes pip

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="arcface-api" \
      org.opencontainers.image.description="A picture of a face crop in, its ArcFace embedding out." \
      org.opencontainers.image.licenses="Apache-2.0"
# A numeric user: Kubernetes' runAsNonRoot checks the number.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin arcface \
    && install --directory --owner arcface --group arcface /models
COPY --from=build /opt/arcface-api /opt/arcface-api
ENV PATH="/opt/arcface-api/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    ARCFACE_HOST=0.0.0.0 \
    ARCFACE_MODELS_DIR=/models \
    ARCFACE_CACHE_DIR=/models/.compiled
USER 10001
VOLUME /models
EXPOSE 5555
# The first start may download the pack: failures count only after the start period.
HEALTHCHECK --interval=10s --timeout=12s --start-period=30m --retries=3 CMD ["python3", "-c", \
    "import os, urllib.request as http; http.build_opener(http.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ.get('ARCFACE_PORT', '5555')}/health\")"]
ENTRYPOINT ["arcface-api"]
CMD ["serve"]

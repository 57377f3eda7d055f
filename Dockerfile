# arcface-api. DEVICE=cpu (default) or cuda chooses the build of ONNX Runtime; see compose.yaml and compose.cuda.yaml.
# BASE=python@sha256:… pins the base; `make image` finds the digest and prints it.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS build
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

# What the image contains, also of the system, whose packages are the same in both stages.
RUN python3 -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --quiet --no-deps --require-hashes --requirement requirements/sbom.txt \
    && /opt/sbom/bin/python requirements/sbom.py --system --output /opt/sbom.cdx.json /opt/arcface-api/bin/python

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.base.name="$BASE" \
      org.opencontainers.image.title="arcface-api" \
      org.opencontainers.image.description="A picture of a face crop in, its ArcFace embedding out." \
      org.opencontainers.image.licenses="Apache-2.0"
# A numeric user: Kubernetes' runAsNonRoot checks the number.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin arcface \
    && install --directory --owner arcface --group arcface /models
COPY --from=build /opt/arcface-api /opt/arcface-api
COPY --from=build /opt/sbom.cdx.json /usr/share/arcface-api/sbom.cdx.json
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
    "import os, ssl, urllib.request as http; name = os.environ.get; scheme = 'https' if name('ARCFACE_TLS_CERTIFICATE_FILE') else 'http'; tls = http.HTTPSHandler(context=ssl._create_unverified_context()); http.build_opener(http.ProxyHandler({}), tls).open(f\"{scheme}://127.0.0.1:{name('ARCFACE_PORT', '5555')}/health\")"]
ENTRYPOINT ["arcface-api"]
CMD ["serve"]

"""Spans for OpenTelemetry: of each request to embed, of its stages, and of the batch that several requests share.

    traceparent ─begin─▶ request's span ─answered─▶ receive ▸ decode ▸ crop ▸ queue ▸ inference ▸ respond
                                                                                        └─link─▶ batch

The stages' lengths are measured. They are shown one after the other, although `queue` is the sum of several waits.
Needs the extra `otel`; where spans go is OpenTelemetry's own configuration, `OTEL_…`.
"""

import random
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Self

from starlette.types import Scope

from arcface_api import __version__
from arcface_api.api.request_log import name_trace
from arcface_api.errors import RuntimeUnfit

if TYPE_CHECKING:  # the packages of the extra
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanContext

SPAN = "arcface_api.span"
"""Key in an ASGI scope: the span of its request."""
BATCHES_KEPT = 1024
"""Batches whose spans are remembered. All requests of one batch are answered at about the same time."""
CLOSE_SECONDS = 2.0
"""How long the service waits at its end for the last spans to be sent."""


class Traces:
    """Records the spans of one process. Belongs to the event loop."""

    def __init__(self, provider: "TracerProvider", share: float = 1.0) -> None:
        """Records with this provider; of requests without a valid `traceparent` this share, the others cost nothing."""
        from opentelemetry import trace  # noqa: PLC0415  # of the extra
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._otel, self._no_parent, self._propagator = trace, Context(), TraceContextTextMapPropagator()
        self._provider, self._share = provider, share
        self._tracer = provider.get_tracer("arcface_api", __version__)
        self._batches: OrderedDict[int, SpanContext] = OrderedDict()

    @classmethod
    def to_collector(cls, share: float) -> Self:
        """Sends spans by OTLP over HTTP, of this share of the requests without a `traceparent`.

        Raises `RuntimeUnfit` if the extra is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise RuntimeUnfit(
                f"ARCFACE_TRACE_SHARE needs the package {error.name}: pip install 'arcface-api[cpu,otel]', or with"
                " [cuda,otel]; in a clone docs/operations.md says how. Without traces, leave ARCFACE_TRACE_SHARE out."
            ) from None
        service = {"service.name": "arcface-api", "service.version": __version__}
        resource = Resource.create(service).merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME wins
        provider = TracerProvider(resource=resource)  # by default the caller's decision holds
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, share)

    def begin(self, scope: Scope) -> bytes | None:
        """Begin the span of a request, in the trace that its caller names. Returns what `traceparent` would have.

        None if this request is not traced.
        """
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        parent = self._propagator.extract(carrier, self._no_parent) if carrier else self._no_parent
        is_asked_for = carrier and self._otel.get_current_span(parent).get_span_context().is_valid
        if not is_asked_for and random.random() >= self._share:  # noqa: S311  # no secret
            return None
        span = self._tracer.start_span(
            f"{scope['method']} {scope['path']}",
            parent,
            kind=self._otel.SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "http.route": scope["path"]},
        )
        scope[SPAN] = span
        context = span.get_span_context()
        trace_id = f"{context.trace_id:032x}"
        name_trace(trace_id)
        return f"00-{trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}".encode()

    def answered(
        self,
        span: "Span",
        status: int,
        code: str,
        seconds: float,
        end: int,
        stages_ms: dict[str, float],
        batch: int | None,
    ) -> None:
        """End the span of a request.

        It took `seconds` until `end`, in Unix nanoseconds, in these stages, and its picture ran in this batch.
        """
        if not span.is_recording():
            return
        at = end - int(seconds * 1e9)
        inside = self._otel.set_span_in_context(span)
        for stage, ms in stages_ms.items():
            began, ended = at, at + int(ms * 1e6)
            links = [self._batch(batch, inside, began, ended)] if stage == "inference" and batch is not None else []
            self._tracer.start_span(stage, inside, start_time=began, links=links).end(ended)
            if stage != "attributes":  # which run beside queue and inference
                at = ended
        span.set_attribute("http.response.status_code", status)
        if code:
            span.set_attribute("error.type", code)
        if status >= 500:
            span.set_status(self._otel.StatusCode.ERROR)
        span.end(end)

    def left(self, span: "Span", end: int) -> None:
        """End the span of a request whose caller has left, at this time in Unix nanoseconds."""
        span.set_attribute("error.type", "caller_left")
        span.end(end)

    def close(self) -> None:
        """Send what is left, or give up: the collector may be gone."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)

    def _batch(self, number: int, inside: "Context", began: int, ended: int) -> "Link":
        """A link to the span of a batch, which the first of its requests records inside of its own."""
        context = self._batches.get(number)
        if context is None:
            span = self._tracer.start_span("batch", inside, start_time=began)
            context = self._batches[number] = span.get_span_context()
            span.end(ended)
            if len(self._batches) > BATCHES_KEPT:
                self._batches.popitem(last=False)
        return self._otel.Link(context)

"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("slime_requests", "Requests by HTTP status", ["status"], registry=registry)
        self.errors = Counter("slime_errors", "Refused and failed requests by kind", ["kind"], registry=registry)
        self.waiting = Gauge("slime_waiting_requests", "Requests that wait for a slot", registry=registry)
        self.running = Gauge("slime_running_requests", "Requests that have a slot", registry=registry)
        self.first_token = Histogram(
            "slime_first_token_seconds", "Time to the first token, after decoding", buckets=_SECONDS, registry=registry
        )
        self.tokens = Counter("slime_generated_tokens", "Tokens of answers", registry=registry)
        self.steps = Counter("slime_decoding_steps", "Steps of the decoding batch", registry=registry)
        self.images = Counter("slime_images", "Images of requests", registry=registry)
        self.encoded = Counter("slime_encoded_images", "Images that the encoder has seen", registry=registry)
        self.hits = Counter("slime_encoder_cache_hits", "Images that were encoded already", registry=registry)
        self.cache_bytes = Gauge("slime_encoder_cache_bytes", "Memory of encoded images", registry=registry)
        self.lost_decoders = Counter("slime_lost_decoders", "Decoding processes that died", registry=registry)

"""Counters and one histogram, as a page of Prometheus text."""

import threading
from collections import Counter

BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_lock = threading.Lock()
_counts = Counter()
_buckets = Counter()
_sum = 0.0


def count(name, **labels):
    series = name + "{" + ",".join(f'{label}="{value}"' for label, value in sorted(labels.items())) + "}"
    with _lock:
        _counts[series] += 1


def request(route, status, seconds):
    global _sum
    count("http_requests_total", route=route, status=status)
    with _lock:
        _sum += seconds
        for bound in (*BUCKETS, float("inf")):
            if seconds <= bound:
                _buckets[bound] += 1


def page(queued):
    with _lock:
        lines = ["# TYPE http_requests_total counter", "# TYPE database_calls_total counter"]
        lines += [f"{series} {value}" for series, value in sorted(_counts.items())]
        lines.append("# TYPE http_request_duration_seconds histogram")
        for bound in (*BUCKETS, float("inf")):
            le = "+Inf" if bound == float("inf") else bound
            lines.append(f'http_request_duration_seconds_bucket{{le="{le}"}} {_buckets[bound]}')
        lines.append(f"http_request_duration_seconds_sum {_sum}")
        lines.append(f"http_request_duration_seconds_count {_buckets[float('inf')]}")
    lines += ["# TYPE queue_length gauge", f"queue_length {queued}"]
    return "\n".join(lines) + "\n"

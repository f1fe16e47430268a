// Counters and histograms, as Prometheus reads them.

const BUCKETS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
const series = new Map();

const name = (metric, labels) =>
  `${metric}{${Object.entries(labels).map(([key, value]) => `${key}="${value}"`).join(',')}}`;

export function count(metric, labels, by = 1) {
  const key = name(metric, labels);
  series.set(key, (series.get(key) ?? 0) + by);
}

export function observe(metric, labels, seconds) {
  for (const le of BUCKETS) count(`${metric}_bucket`, { ...labels, le }, seconds <= le ? 1 : 0);
  count(`${metric}_bucket`, { ...labels, le: '+Inf' });
  count(`${metric}_sum`, labels, seconds);
  count(`${metric}_count`, labels);
}

export function page() {
  const lines = [...series].map(([key, value]) => `${key} ${value}`);
  return `${lines.join('\n')}\nprocess_resident_memory_bytes ${process.memoryUsage.rss()}\n`;
}

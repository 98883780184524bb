// Package prometheus exports a store to Prometheus: its totals, how long its calls
// take, and what happened in it.
//
// A Collector hears of events as the store's EventListener, and asks the store for
// the rest when it is scraped. Metrics have no label that grows with the store; a
// program with several stores registers a Collector for each, with a label that
// tells them apart, by prometheus.WrapRegistererWith.
package prometheus

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// scrapeTime bounds how long a scrape waits for the store's totals.
const scrapeTime = 5 * time.Second

// Collector is a prometheus.Collector of one store. It is safe for concurrent use.
type Collector struct {
	store atomic.Pointer[engine.FileStore]

	storedBytes, sharedBytes, freedBytes prometheus.Counter
	readBytes                            *prometheus.CounterVec // by operation
	deleted                              prometheus.Counter
	healed                               prometheus.Counter
	damages                              *prometheus.CounterVec // by kind
	refusals                             *prometheus.CounterVec // by limit
	failures                             *prometheus.CounterVec // by operation and class
	groupOperations, groupBytes          prometheus.Counter
	groupSync                            prometheus.Counter
}

// Gauges and the histogram are made of Stats at each scrape.
var (
	up            = describe("up", "Whether the store is open and its totals could be read.")
	references    = describe("references", "References in the store.")
	blobs         = describe("blobs", "Blobs in the store.")
	logicalBytes  = describe("logical_bytes", "Sum of the sizes of all references.")
	physicalBytes = describe("physical_bytes", "Sum of the sizes of all blobs.")
	savedBytes    = describe("saved_bytes", "What sharing saves: the difference of logical and physical bytes.")
	indexBytes    = describe("index_bytes", "Size of the index.")
	duration      = describe("operation_duration_seconds", "Duration of the calls that succeeded, and of commits of groups.", "operation")
)

// namespace begins the name of every metric.
const namespace = "mediabolt"

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// NewCollector returns a collector whose listener is to go into the configuration
// of a store, which Watch is then to be told of.
func NewCollector() *Collector {
	c := &Collector{
		storedBytes:     counter("stored_bytes_total", "Bytes of blobs that were new, or healed one."),
		sharedBytes:     counter("shared_bytes_total", "Bytes that were brought and were there already."),
		freedBytes:      counter("freed_bytes_total", "Bytes of blobs that went with their last reference."),
		readBytes:       counters("read_bytes_total", "Bytes of blobs that were retrieved or opened.", "operation"),
		deleted:         counter("deleted_total", "References that were deleted."),
		healed:          counter("healed_total", "Blobs whose file was missing or cut short and came back."),
		damages:         counters("damage_total", "Damage that reads and verifications have met, by kind.", "kind"),
		refusals:        counters("refusals_total", "Stores that a quota or MinFreeBytes has refused, by limit.", "limit"),
		failures:        counters("failures_total", "Calls that failed, by class of the error.", "operation", "class"),
		groupOperations: counter("commit_operations_total", "Changes that were committed; groups of them are counted by the duration."),
		groupBytes:      counter("commit_bytes_total", "Bytes that the index wrote for commits."),
		groupSync:       counter("commit_sync_seconds_total", "Time that commits took for making blobs durable."),
	}
	// Series that are there before their first event show an increase.
	c.readBytes.WithLabelValues(string(engine.OpRetrieve))
	c.readBytes.WithLabelValues(string(engine.OpOpen))
	for _, kind := range []storage.FindingKind{storage.FindingMissing, storage.FindingSize, storage.FindingChecksum, storage.FindingIndex} {
		c.damages.WithLabelValues(string(kind))
	}
	for _, limit := range []engine.Limit{engine.LimitTotal, engine.LimitUser, engine.LimitSession, engine.LimitFree} {
		c.refusals.WithLabelValues(string(limit))
	}
	return c
}

// Watch says which store the collector asks for its totals. Until then, and once
// the store is closed, mediabolt_up is 0.
func (c *Collector) Watch(store *engine.FileStore) { c.store.Store(store) }

// EventListener is to be set in the configuration of the store; engine.TeeEvents
// joins it with others.
func (c *Collector) EventListener() *engine.EventListener {
	read := func(e engine.Event) { c.readBytes.WithLabelValues(string(e.Operation)).Add(float64(e.Bytes)) }
	return &engine.EventListener{
		Stored: func(e engine.Event) { c.storedBytes.Add(float64(e.Bytes)) },
		Shared: func(e engine.Event) { c.sharedBytes.Add(float64(e.Bytes)) },
		Healed: func(e engine.Event) {
			c.healed.Inc()
			c.storedBytes.Add(float64(e.Bytes))
		},
		Retrieved: read,
		Opened:    read,
		Deleted: func(e engine.Event) {
			c.deleted.Inc()
			if e.Last {
				c.freedBytes.Add(float64(e.Bytes))
			}
		},
		Damaged: func(e engine.Event) { c.damages.WithLabelValues(string(e.Finding.Kind)).Inc() },
		Committed: func(e engine.Event) {
			c.groupOperations.Add(float64(e.Commit.Operations))
			c.groupBytes.Add(float64(e.Commit.Bytes))
			c.groupSync.Add(e.Commit.Sync.Seconds())
		},
		Refused: func(e engine.Event) { c.refusals.WithLabelValues(string(e.Limit)).Inc() },
		Failed:  func(e engine.Event) { c.failures.WithLabelValues(string(e.Operation), e.Class).Inc() },
	}
}

// counted are the metrics that events count.
func (c *Collector) counted() []prometheus.Collector {
	return []prometheus.Collector{
		c.storedBytes, c.sharedBytes, c.freedBytes, c.readBytes, c.deleted, c.healed, c.damages, c.refusals, c.failures,
		c.groupOperations, c.groupBytes, c.groupSync,
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{up, references, blobs, logicalBytes, physicalBytes, savedBytes, indexBytes, duration} {
		to <- d
	}
	for _, m := range c.counted() {
		m.Describe(to)
	}
}

// Collect implements prometheus.Collector. A store that cannot tell its totals is
// not up.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, m := range c.counted() {
		m.Collect(to)
	}
	stats, err := c.stats()
	if err != nil {
		to <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 0)
		return
	}
	to <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 1)
	for d, value := range map[*prometheus.Desc]int64{
		references: stats.References, blobs: stats.Blobs, logicalBytes: stats.LogicalBytes, physicalBytes: stats.PhysicalBytes,
		savedBytes: stats.SavedBytes, indexBytes: stats.IndexBytes,
	} {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value))
	}
	for op, latency := range stats.Latencies.All() {
		to <- histogram(op, latency)
	}
}

var errNoStore = errors.New("no store to watch")

func (c *Collector) stats() (engine.Stats, error) {
	store := c.store.Load()
	if store == nil {
		return engine.Stats{}, errNoStore
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	return store.Stats(ctx)
}

// histogram is a latency with buckets at its bounds.
func histogram(op engine.Operation, l *engine.Latency) prometheus.Metric {
	within := make(map[float64]uint64, engine.LatencyBounds)
	for i, n := range l.Within {
		within[engine.LatencyBound(i).Seconds()] = uint64(n)
	}
	return prometheus.MustNewConstHistogram(duration, uint64(l.Count), l.Sum.Seconds(), within, string(op))
}

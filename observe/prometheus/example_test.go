package prometheus_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	client "github.com/prometheus/client_golang/prometheus"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/observe/prometheus"
	"github.com/mediabolt/mediabolt/storage"
)

// The collector's listener goes into the store's configuration, the store into
// the collector; promhttp then serves what the registry gathers.
func ExampleNewCollector() {
	dir, err := os.MkdirTemp("", "mediabolt-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	collector := prometheus.NewCollector()
	store, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, EventListener: collector.EventListener()})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	collector.Watch(store)
	registry := client.NewRegistry()
	registry.MustRegister(collector)

	_, err = store.StoreReader(context.Background(), strings.NewReader("hello"), storage.MediaInfo{}, storage.MediaMetadata{})
	if err != nil {
		log.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mediabolt_stored_bytes_total" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output: mediabolt_stored_bytes_total 5
}

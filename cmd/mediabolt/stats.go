package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
)

// statsRecord is what stats prints in JSON. Sizes are in bytes.
type statsRecord struct {
	Store         string `json:"store"`
	References    int64  `json:"references"`
	Blobs         int64  `json:"blobs"`
	LogicalBytes  int64  `json:"logical_bytes"`
	PhysicalBytes int64  `json:"physical_bytes"`
	SavedBytes    int64  `json:"saved_bytes"`
	IndexBytes    int64  `json:"index_bytes"`
}

func (a *app) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show how much is stored, and what sharing saves",
		Long: `Show the totals of the store: references and the blobs that they share, the bytes
of all references (logical) and of all blobs (physical), what dedup saves, and the
size of the index. The index keeps these totals, so this is quick in any store.`,
		Example: `  mediabolt stats
  mediabolt stats --json | jq .saved_bytes`,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withExisting(cmd.Context(), func(store *engine.FileStore) error {
				dir, err := a.storeDir()
				if err != nil {
					return err
				}
				s, err := store.Stats(cmd.Context())
				if err != nil {
					return err
				}
				return a.printStats(dir, &s)
			})
		},
	}
}

func (a *app) printStats(dir string, s *engine.Stats) error {
	if a.asJSON {
		return a.printJSON(statsRecord{
			Store: dir, References: s.References, Blobs: s.Blobs, LogicalBytes: s.LogicalBytes,
			PhysicalBytes: s.PhysicalBytes, SavedBytes: s.SavedBytes, IndexBytes: s.IndexBytes,
		})
	}
	saved := humanBytes(s.SavedBytes)
	if s.LogicalBytes > 0 {
		saved += fmt.Sprintf(" (%.0f %%)", 100*float64(s.SavedBytes)/float64(s.LogicalBytes))
	}
	return a.printPairs([][2]string{
		{"store", dir},
		{"references", humanize.Comma(s.References)},
		{"blobs", humanize.Comma(s.Blobs)},
		{"logical size", humanBytes(s.LogicalBytes)},
		{"on disk", humanBytes(s.PhysicalBytes)},
		{"saved by dedup", saved},
		{"index", humanBytes(s.IndexBytes)},
	})
}

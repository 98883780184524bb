package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) statCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stat ID…",
		Short: "Show all that is known of what was stored",
		Long: `Show all that the index knows of what was stored under each ID: kind, size, digest,
where its file is, how many references share the bytes, what it belongs to, labels
and times. The file itself is not read; 'mediabolt verify' does that.`,
		Example: `  mediabolt stat ID
  mediabolt stat --json ID | jq .labels`,
		Args:              some("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				shown := 0
				return a.each(ctx, len(ids), "IDs", func(i int) string { return ids[i] }, func(i int) error {
					entry, err := store.Stat(ctx, &storage.StorageReference{ID: ids[i]})
					if err != nil {
						return err
					}
					if shown++; shown > 1 && !a.asJSON {
						if _, err := fmt.Fprintln(a.stdout); err != nil {
							return err
						}
					}
					return a.printEntry(&entry)
				})
			})
		},
	}
}

// printEntry prints everything about one reference.
func (a *app) printEntry(e *engine.Entry) error {
	if a.asJSON {
		return a.printJSON(recordOf(e))
	}
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	accessed := "never"
	if !e.AccessedAt.IsZero() {
		accessed = moment(e.AccessedAt)
	}
	rows := [][2]string{
		{"id", e.Reference.ID},
		{"type", e.Type + ", " + e.MimeType},
		{"size", fmt.Sprintf("%s (%d bytes)", humanBytes(e.Size), e.Size)},
		{"sha256", e.Digest.String()},
		{"file", filepath.Join(dir, filepath.FromSlash(e.Path))},
		{"references", fmt.Sprintf("%d share the bytes", e.Refs)},
		{"session", e.Metadata.SessionID},
		{"conversation", e.Metadata.ConversationID},
		{"run", e.Metadata.RunID},
		{"user", e.Metadata.UserID},
		{"message", fmt.Sprintf("%d, content %d", e.Metadata.MessageIndex, e.Metadata.ContentIndex)},
		{"created", moment(e.Metadata.CreatedAt)},
		{"added", moment(e.AddedAt)},
		{"stored", moment(e.StoredAt)},
		{"accessed", accessed},
		{"policy", e.Metadata.Policy},
		{"kept", until(e.ExpiresAt)},
	}
	if e.Count > 1 {
		rows = append(rows, [2]string{"count", fmt.Sprintf("%d deletions end it", e.Count)})
	}
	if e.Refs == 1 {
		rows[5][1] = "1"
	}
	for _, key := range slices.Sorted(maps.Keys(e.Metadata.Labels)) {
		rows = append(rows, [2]string{"label " + key, e.Metadata.Labels[key]})
	}
	return a.printPairs(rows)
}

// printPairs prints names and values; what has no value is left out.
func (a *app) printPairs(rows [][2]string) error {
	t := newTable(a.stdout)
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if err := t.row(row[0], row[1]); err != nil {
			return err
		}
	}
	return t.end()
}

package cell

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/mediabolt/mediabolt/bench"
	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/blobs"
)

// fillGCPercent is GOGC of a fill: half of what a million rows cost in processor
// time was collections, and with that of a measurement the garbage took 4.7 GB.
const fillGCPercent = 400

func fill(ctx context.Context, c *Cell, dir string) error {
	rows := c.Rows()
	if rows.Count == 0 {
		return nil
	}
	debug.SetGCPercent(fillGCPercent)
	if c.isPass() {
		return bench.FillWhole(ctx, dir, 1, c.Refs, c.Size)
	}
	if c.isJSON() && rows.Files == 0 {
		return fillJSON(dir, rows)
	}
	s, err := named(c.Index)
	if err != nil {
		return err
	}
	return bench.Fill(ctx, dir, rows, s.Open)
}

func named(name string) (strategy.Strategy, error) {
	s, ok := strategy.Named(name)
	if !ok {
		return s, fmt.Errorf("no index strategy is called %q", name)
	}
	return s, nil
}

// fillJSON writes the file of the JSON strategies at once: through them each row
// would write all before it anew.
func fillJSON(dir string, rows bench.Rows) (err error) {
	ctl := filepath.Join(dir, blobs.ControlDir)
	if err := os.MkdirAll(ctl, 0o700); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(ctl, "index.json"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	comma := "{"
	for n := 1; n <= rows.Count; n++ {
		b := rows.Row(nil, uint64(n)).Blob
		entry, err := json.Marshal(map[string]any{
			"hash": b.Digest.String(), "path": b.Path, "size": b.Size, "mime_type": b.MimeType, "ref_count": 1,
			"created_at": time.Unix(0, 0).UTC(), "last_accessed": time.Time{},
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%q:%s", comma, "sha256:"+b.Digest.String(), entry); err != nil {
			return err
		}
		comma = ","
	}
	if _, err := w.WriteString("}"); err != nil {
		return err
	}
	return w.Flush()
}

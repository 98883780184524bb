package adopt

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
)

// Dump writes the index of a store to w in the format JSON, see jsonindex.go, with
// paths relative to the store. It holds some hundred blobs in memory at a time. ref_count is how many deletions it takes until the bytes
// go: the number of references, a counted one as many times as it counts. A blob that
// nobody else shares because it was stored without dedup has "#" and the name of its
// file behind the digest, for there may be others with that. Times that are not known
// are 0001-01-01T00:00:00Z.
//
// What is stored or deleted meanwhile may or may not be in it. An error leaves an
// object that is not closed, so nobody takes it for whole: of the store, as with
// FileStore.Blobs, of w, or ctx's.
func Dump(ctx context.Context, store *engine.FileStore, w io.Writer) (d Dumped, err error) {
	out := bufio.NewWriterSize(w, 1<<16)
	if _, err := io.WriteString(out, "{"); err != nil {
		return d, err
	}
	for b, err := range store.Blobs(ctx) {
		if err != nil {
			return d, err
		}
		if b.Digest.IsZero() {
			d.Nameless++
			continue
		}
		count, err := countOf(ctx, store, &b)
		if err != nil {
			return d, err
		}
		if count == 0 {
			continue // deleted meanwhile
		}
		if err := writeEntry(out, &b, count, d.Blobs == 0); err != nil {
			return d, err
		}
		d.Blobs++
	}
	if _, err := io.WriteString(out, "\n}\n"); err != nil {
		return d, err
	}
	return d, out.Flush()
}

// Dumped is what Dump has written.
type Dumped struct {
	Blobs    int64
	Nameless int64 // blobs that were left out, whose digest is not known
}

// countOf is how many deletions it takes until a blob goes.
func countOf(ctx context.Context, store *engine.FileStore, b *engine.BlobEntry) (int64, error) {
	var count int64
	for e, err := range store.References(ctx, b.Digest) {
		if err != nil {
			return 0, err
		}
		if e.Path == b.Path {
			count += e.Count
		}
	}
	return count, nil
}

func writeEntry(out *bufio.Writer, b *engine.BlobEntry, count int64, first bool) error {
	name := "sha256:" + b.Digest.String()
	if !b.Shared {
		stem, _, _ := strings.Cut(path.Base(b.Path), ".")
		name += "#" + stem
	}
	field, err := json.Marshal(name)
	if err != nil {
		return err
	}
	value, err := json.Marshal(jsonEntry{
		Hash: b.Digest.String(), Path: b.Path, Size: b.Size, MimeType: b.MimeType, RefCount: count,
		CreatedAt: b.StoredAt.UTC(), LastAccessed: b.AccessedAt.UTC(),
	})
	if err != nil {
		return err
	}
	separator := ",\n  "
	if first {
		separator = "\n  "
	}
	_, err = fmt.Fprintf(out, "%s%s: %s", separator, field, value)
	return err
}

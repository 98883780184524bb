package adopt

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
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

// countOf is how many deletions it takes until a blob goes. One that is not shared
// has, as a rule, the one reference that it is named after.
func countOf(ctx context.Context, store *engine.FileStore, b *engine.BlobEntry) (int64, error) {
	if !b.Shared && b.Refs == 1 {
		e, err := store.Stat(ctx, &storage.StorageReference{ID: stem(b.Path)})
		if err == nil && e.Path == b.Path {
			return e.Count, nil
		} else if err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrInvalidRef) {
			return 0, err
		}
	}
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

// stem is the name of a blob's file without its extension.
func stem(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return name
}

func writeEntry(out *bufio.Writer, b *engine.BlobEntry, count int64, first bool) error {
	name := "sha256:" + b.Digest.String()
	if !b.Shared {
		name += "#" + stem(b.Path)
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

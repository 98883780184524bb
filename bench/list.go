package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// ListedSession is the session that FillListed makes.
const ListedSession = "listed"

// FillListed makes the index of a store in dir as FillIndex does, with n references,
// and some more of one session, spread evenly over the others, whose blobs are their
// own.
func FillListed(ctx context.Context, dir string, n, some int) (err error) {
	if err := FillIndex(ctx, dir, n); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Join(dir, blobs.ControlDir))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // was only read
	index, err := boltindex.Open(ctx, boltindex.Config{Root: root, NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	rows := Rows{Count: n, Size: storeSize}
	for i := range some {
		add := rows.Row(nil, uint64(1+i*n/some))
		u := &add.Ref.UUID
		u[len(u)-1] = 1 // right behind the row
		add.Ref.Blob = storage.UUIDKey(*u)
		add.Ref.Metadata.SessionID = ListedSession
		add.Blob.Key = add.Ref.Blob
		add.Blob.Digest[len(add.Blob.Digest)-1]++
		add.Blob.Path = path.Join(blobs.Dir(storage.OrganizationBySession, &add.Ref.Metadata), blobs.FileName(storage.ID{UUID: *u}, info.MimeType))
		if _, err := index.Add(ctx, add); err != nil {
			return err
		}
	}
	debt, err := index.Debt(ctx)
	if err != nil {
		return err
	}
	return index.Settle(ctx, debt)
}

// List lists what a query lists, which must be at least some references, and says
// how many they are.
func List(s *engine.FileStore, query engine.Query, some int) (listed int, err error) {
	for _, err := range s.List(context.Background(), query) {
		if err != nil {
			return listed, err
		}
		listed++
	}
	if listed < some {
		err = fmt.Errorf("%d references are listed, want %d", listed, some)
	}
	return listed, err
}

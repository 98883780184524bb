package boltindex_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// toFormat3 makes of an index of format 4 one as format 3 had it, with the sums of its
// pages to be made anew.
func toFormat3(t testing.TB, dir string) {
	t.Helper()
	edit(t, dir, func(tx *bolt.Tx) error {
		for _, name := range []string{"by_expiry", "usage"} {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, 3))
	})
	require.NoError(t, os.Remove(filepath.Join(dir, "index.sums")))
}

func formatOf(t testing.TB, file string) (format uint32) {
	t.Helper()
	db, err := bolt.Open(file, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		format = binary.BigEndian.Uint32(tx.Bucket([]byte("meta")).Get([]byte("format")))
		return nil
	}))
	require.NoError(t, db.Close())
	return format
}

// TestMigrateFrom3 compares what is counted with what was.
func TestMigrateFrom3(t *testing.T) {
	for _, references := range []int{0, 1, 3000} {
		t.Run(fmt.Sprintf("references=%d", references), func(t *testing.T) {
			dir, ctx := t.TempDir(), context.Background()
			x := mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
			for i := range references {
				var u storage.UUID
				binary.BigEndian.PutUint64(u[8:], uint64(i+1)) // no reference has the zero UUID
				m := storage.MediaMetadata{SessionID: fmt.Sprint("s", i%7), CreatedAt: time.UnixMicro(int64(i)).UTC()}
				if i%3 > 0 {
					m.UserID = fmt.Sprint("u", i%5)
				}
				add := addition(u, m)
				if i%2 > 0 {
					add.Ref.Blob, add.Blob.Key = storage.UUIDKey(u), storage.UUIDKey(u)
				}
				_, err := x.Add(ctx, add)
				require.NoError(t, err)
			}
			type id struct {
				kind storage.IDKind
				id   string
			}
			usage := func(x *boltindex.Index) map[id]storage.Usage {
				all := map[id]storage.Usage{}
				for i := range 8 {
					for _, id := range []id{{storage.SessionIDs, fmt.Sprint("s", i)}, {storage.UserIDs, fmt.Sprint("u", i)}} {
						u, err := x.Usage(ctx, id.kind, id.id)
						require.NoError(t, err)
						all[id] = u
					}
				}
				return all
			}
			want, counters := usage(x), countersOf(t, x)
			mustClose(t, x)
			toFormat3(t, dir)
			// A crash has left a copy, and half of one.
			require.NoError(t, os.WriteFile(path(dir)+".format-3", []byte("an earlier one"), 0o600))
			require.NoError(t, os.WriteFile(path(dir)+".format-3.x.tmp", []byte("half"), 0o600))

			x = mustOpen(t, dir)
			require.Equal(t, want, usage(x))
			require.Equal(t, counters, countersOf(t, x))
			rows, err := x.Blobs(ctx, "", 1<<20)
			require.NoError(t, err)
			require.EqualValues(t, counters.Blobs, len(rows))
			for i := range rows {
				_, shared := rows[i].Key.Digest()
				require.Equal(t, shared, rows[i].Ended == 1)
			}
			mustClose(t, x)
			require.EqualValues(t, 4, formatOf(t, path(dir)))
			require.EqualValues(t, 3, formatOf(t, path(dir)+".format-3"))
			require.NoFileExists(t, path(dir)+".format-3.x.tmp")

			// The copy is a whole index: the way back.
			require.NoError(t, os.Rename(path(dir)+".format-3", path(dir)))
			require.NoError(t, os.Remove(filepath.Join(dir, "index.sums")))
			x = mustOpen(t, dir)
			require.Equal(t, want, usage(x))
			mustClose(t, x)
		})
	}
}

// TestMigrationNeedsAWayFrom refuses formats that no step leads from.
func TestMigrationNeedsAWayFrom(t *testing.T) {
	for _, format := range []uint32{0, 1, 2, 5, 99} {
		dir := t.TempDir()
		mustClose(t, mustOpen(t, dir))
		edit(t, dir, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, format))
		})
		_, err := open(context.Background(), t, dir, boltindex.Config{})
		require.ErrorIs(t, err, storage.ErrVersion)
		require.ErrorContains(t, err, fmt.Sprint("format ", format))
		require.EqualValues(t, format, formatOf(t, path(dir)))
		copies, err := filepath.Glob(path(dir) + ".format-*")
		require.NoError(t, err)
		require.Empty(t, copies)
	}
}

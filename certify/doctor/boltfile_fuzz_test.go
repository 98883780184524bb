package doctor

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// Whatever pages hold, reading them comes to an end, with a value or with an error.
func FuzzBoltFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024})
	require.NoError(f, err)
	require.NoError(f, db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"meta", "refs"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			for i := range 40 {
				if err := b.Put([]byte{byte(i), 'k'}, bytes.Repeat([]byte("v"), 3*i)); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	var whole bytes.Buffer
	require.NoError(f, db.View(func(tx *bolt.Tx) error { _, err := tx.WriteTo(&whole); return err }))
	require.NoError(f, db.Close())
	seed, err := openBolt(bytes.NewReader(whole.Bytes()))
	require.NoError(f, err)
	f.Add(whole.Bytes(), seed.root, seed.free, uint64(len(whole.Bytes()))/1024)
	f.Fuzz(func(t *testing.T, data []byte, root, free, pages uint64) {
		// A meta page has a checksum, which a fuzzer would not get past.
		b := &boltFile{bytes.NewReader(data), boltMeta{pageSize: 1024, root: root, free: free, pages: min(pages, 1<<12)}}
		if n, err := b.freePages(); err == nil {
			require.LessOrEqual(t, n, b.pages)
		}
		for _, name := range []string{"meta", "refs", ""} {
			top, err := b.bucket(name)
			if err != nil {
				continue
			}
			_, _ = b.last(top) // no panic is what is asked for
			_, _ = b.get(top, "\x07k")
		}
	})
}

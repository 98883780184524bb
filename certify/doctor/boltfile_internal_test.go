package doctor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// A branch that leads back to itself is damage, and no way without an end.
func TestPagesInACircle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("refs"))
		if err != nil {
			return err
		}
		for i := range 2000 {
			if err := b.Put(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte("x"), 50)); err != nil {
				return err
			}
		}
		return nil
	}))
	var whole bytes.Buffer
	require.NoError(t, db.View(func(tx *bolt.Tx) error { _, err := tx.WriteTo(&whole); return err }))
	require.NoError(t, db.Close())

	f, err := openBolt(bytes.NewReader(whole.Bytes()))
	require.NoError(t, err)
	top, err := f.bucket("refs")
	require.NoError(t, err)
	require.Equal(t, uint16(flagBranch), top.flags())
	last, err := f.last(top)
	require.NoError(t, err)
	require.Equal(t, "001999", string(last))
	value, err := f.get(top, "001234")
	require.NoError(t, err)
	require.Len(t, value, 50)
	value, err = f.get(top, "x")
	require.NoError(t, err)
	require.Nil(t, value)

	id := binary.NativeEndian.Uint64(top)
	for i := range top.count() {
		at := id*f.pageSize + headerSize + uint64(i)*elementSize + 8
		binary.NativeEndian.PutUint64(whole.Bytes()[at:], id)
	}
	f, err = openBolt(bytes.NewReader(whole.Bytes()))
	require.NoError(t, err)
	top, err = f.bucket("refs")
	require.NoError(t, err)
	_, err = f.last(top)
	require.ErrorIs(t, err, errDamaged)
	_, err = f.get(top, "001234")
	require.ErrorIs(t, err, errDamaged)
}

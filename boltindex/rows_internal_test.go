package boltindex

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Rows read through all layers are those of a plain map, however they are spread
// over active segment, frozen segment and bbolt.
func TestLayersReadAsOne(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	x, err := Open(context.Background(), Config{Root: root, Create: true, NoSync: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	want := map[string]string{}
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.SampledFrom([]string{"a", "ab", "abc", "b", "b\x00", "c", "\x00", "\xff", "\xff\xff"})
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			key := keys.Draw(rt, "key")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1:
				value := rapid.SampledFrom([]string{"", "1", "2"}).Draw(rt, "value")
				require.NoError(rt, x.change(false, func(t *txn) error { return t.put(bucketUnlinks, []byte(key), []byte(value)) }))
				want[key] = value
			case 2, 3:
				require.NoError(rt, x.change(false, func(t *txn) error { t.delete(bucketUnlinks, []byte(key)); return nil }))
				delete(want, key)
			case 4:
				x.writing.Lock()
				x.freeze()
				x.writing.Unlock()
			case 5:
				require.NoError(rt, x.flushFrozen(false))
			}
			start := keys.Draw(rt, "start")
			expected, got := map[string]string{}, map[string]string{}
			for k, v := range want {
				if k >= start {
					expected[k] = v
				}
			}
			last := ""
			err := x.view(func(r *rows) error {
				for k, v := range r.from(bucketUnlinks, []byte(start)) {
					require.Greater(rt, string(k), last, "in order")
					last, got[string(k)] = string(k), string(v)
				}
				before, beforeWant := map[string]string{}, map[string]string{}
				for k, v := range want {
					if k < start {
						beforeWant[k] = v
					}
				}
				last = "\xff\xff\xff"
				for k, v := range r.before(bucketUnlinks, []byte(start)) {
					require.Less(rt, string(k), last, "in reverse order")
					last, before[string(k)] = string(k), string(v)
				}
				require.Equal(rt, beforeWant, before)
				value, there := want[key]
				row := r.get(bucketUnlinks, []byte(key))
				require.Equal(rt, there, row != nil)
				require.Equal(rt, value, string(row))
				return nil
			})
			require.NoError(rt, err)
			require.Equal(rt, expected, got)
		}
	})
}

func FuzzTableCodec(f *testing.F) {
	sample := newTable()
	sample.Set(tableKey(bucketRefs, []byte("key")), []byte("value"))
	sample.Set(tableKey(bucketMirrors, []byte("gone")), nil)
	sample.Set(tableKey(bucketBySession, []byte("s\x00")), []byte{})
	f.Add(appendTable(nil, sample))
	f.Add([]byte{})
	f.Add([]byte{rowVersion, 2, 0, 'x', 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		table := newTable()
		if decodeTable(body, table) != nil {
			return
		}
		again := newTable()
		require.NoError(t, decodeTable(appendTable(nil, table), again))
		require.Equal(t, table.Keys(), again.Keys())
		require.Equal(t, table.Values(), again.Values())
	})
}

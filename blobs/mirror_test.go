package blobs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

func TestSidecarOnDisk(t *testing.T) {
	for how, cfg := range configs {
		t.Run(how, func(t *testing.T) {
			tr := mustOpen(t, t.TempDir(), cfg)
			key, name := blob(1, "s/c")
			b := row(1, "s/c")
			one, two := storage.UUID{15: 1}, storage.UUID{15: 2}
			second := storage.SidecarLine{Ref: &storage.RefRow{UUID: two}}
			_, err := tr.ReadSidecar(tr.ctx, name)
			require.ErrorIs(t, err, storage.ErrNotFound)
			require.ErrorIs(t, tr.AppendSidecar(tr.ctx, &b, second), storage.ErrNotFound, "only a first line makes a sidecar")
			tr.publish(key, name, []byte("x"))
			require.ErrorIs(t, tr.AppendSidecar(tr.ctx, &b, second), storage.ErrNotFound)

			require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true, Ref: &storage.RefRow{UUID: one, Blob: key}}))
			require.NoError(t, tr.AppendSidecar(tr.ctx, &b, second))
			require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{Deleted: one}))
			require.NoError(t, tr.Settle(tr.ctx))
			s, err := tr.ReadSidecar(tr.ctx, name)
			require.NoError(t, err)
			require.Zero(t, s.Damaged)
			require.Len(t, s.Lines, 3)
			require.Equal(t, key, s.Blob.Key)
			require.Len(t, s.Live(), 1)
			for _, m := range []storage.Mirror{{UUID: one}, {UUID: two}, {UUID: one, Deleted: true}} {
				require.NotNil(t, s.Line(&m), "%+v", m)
			}
			require.Nil(t, s.Line(&storage.Mirror{UUID: two, Deleted: true}))

			// A person can read it: one JSON object a line.
			data, err := os.ReadFile(filepath.Join(tr.dir, name+".meta"))
			require.NoError(t, err)
			require.Equal(t, 3, strings.Count(string(data), "\n"))
			for line := range strings.Lines(string(data)) {
				require.True(t, strings.HasPrefix(line, `{"v":1,`) && strings.HasSuffix(line, "\"}\n"), line)
			}
		})
	}
}

// The line after one that a crash cut short begins on a line of its own.
func TestAppendAfterATornLine(t *testing.T) {
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSync: true})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	tr.publish(key, name, []byte("x"))
	require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true, Ref: &storage.RefRow{UUID: storage.UUID{15: 1}}}))
	f, err := os.OpenFile(filepath.Join(tr.dir, name+".meta"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"v":1,"ref":{"id":"a1`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	s, err := tr.ReadSidecar(tr.ctx, name)
	require.NoError(t, err)
	require.True(t, s.Torn)
	require.Equal(t, 1, s.Damaged)

	require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{AfterTorn: s.Torn, Ref: &storage.RefRow{UUID: storage.UUID{15: 2}}}))
	s, err = tr.ReadSidecar(tr.ctx, name)
	require.NoError(t, err)
	require.False(t, s.Torn)
	require.Len(t, s.Lines, 2)
	require.Equal(t, 1, s.Damaged)
}

func TestConcurrentAppendsToOneSidecar(t *testing.T) {
	const goroutines, each = 32, 25
	tr := mustOpen(t, t.TempDir(), blobs.Config{NoSyncFS: true})
	key, name := blob(1, "s/c")
	b := row(1, "s/c")
	tr.publish(key, name, []byte("x"))
	require.NoError(t, tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{First: true, Ref: &storage.RefRow{UUID: storage.UUID{15: 1}}}))
	var all sync.WaitGroup
	for g := range byte(goroutines) {
		all.Go(func() {
			for i := range byte(each) {
				ref := storage.RefRow{UUID: storage.UUID{0: g + 1, 1: i}, Metadata: storage.MediaMetadata{
					Labels: map[string]string{"prompt": strings.Repeat(fmt.Sprint(g), 2000)},
				}}
				if err := tr.AppendSidecar(tr.ctx, &b, storage.SidecarLine{Ref: &ref}); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, tr.Settle(tr.ctx))
	s, err := tr.ReadSidecar(tr.ctx, name)
	require.NoError(t, err)
	require.Zero(t, s.Damaged)
	require.Equal(t, 1+goroutines*each, len(s.Live()))
}

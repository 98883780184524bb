package engine_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// usageOf is what a report by a kind must say of the model.
func (m *model) usageOf(by engine.UsageKind) engine.UsageReport {
	group := func(ref *modelRef) string {
		switch by {
		case engine.UsageBySession:
			return ref.meta.SessionID
		case engine.UsageByConversation:
			return ref.meta.ConversationID
		case engine.UsageByRun:
			return ref.meta.RunID
		case engine.UsageByUser:
			return ref.meta.UserID
		}
		return ref.info.Type
	}
	groups := map[string]*engine.Usage{}
	sharers := map[string]map[string]bool{} // groups of each blob
	report := engine.UsageReport{By: by}
	for _, ref := range m.refs {
		g := group(ref)
		if groups[g] == nil {
			groups[g] = &engine.Usage{Group: g}
		}
		size := int64(len(m.blobs[ref.blob].data))
		for _, u := range []*engine.Usage{groups[g], &report.Total} {
			u.References++
			u.LogicalBytes += size
		}
		if sharers[ref.blob] == nil {
			sharers[ref.blob] = map[string]bool{}
		}
		sharers[ref.blob][g] = true
	}
	for blob, of := range sharers {
		size := int64(len(m.blobs[blob].data))
		if len(of) > 1 {
			report.Total.SharedBytes += size
		} else {
			report.Total.ExclusiveBytes += size
		}
		for g := range of {
			if len(of) > 1 {
				groups[g].SharedBytes += size
			} else {
				groups[g].ExclusiveBytes += size
			}
		}
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		report.Groups = append(report.Groups, *groups[g])
	}
	return report
}

// requireUsage compares every report, and every group of it alone, with the model.
func (m *model) requireUsage(t *testing.T, f *engine.FileStore) {
	t.Helper()
	ctx := context.Background()
	for _, by := range engine.UsageKinds() {
		want := m.usageOf(by)
		got, err := f.Usage(ctx, by)
		require.NoError(t, err)
		require.Empty(t, slices.DeleteFunc(slices.Clone(got.Groups), func(u engine.Usage) bool { return u.References > 0 }))
		require.ElementsMatch(t, want.Groups, got.Groups, by)
		require.True(t, slices.IsSortedFunc(got.Groups, func(a, b engine.Usage) int { return strings.Compare(a.Group, b.Group) }))
		require.Equal(t, want.Total, got.Total, by)
		for _, u := range want.Groups {
			one, err := f.UsageOf(ctx, by, u.Group)
			require.NoError(t, err)
			require.Equal(t, u, one, by)
		}
		nobody, err := f.UsageOf(ctx, by, "nobody")
		require.NoError(t, err)
		require.Equal(t, engine.Usage{Group: "nobody"}, nobody)
	}
}

// Whatever is stored and deleted, in whatever scope, usage is what maps say.
func TestUsageIsThatOfTheModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for n, scope := range []engine.DedupScope{engine.ScopeGlobal, engine.ScopeUser, engine.ScopeSession, "none"} {
		t.Run(string(scope), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: scope != "none", Sync: engine.SyncNone}
			if config.EnableDeduplication {
				config.DedupScope = scope
			}
			f := mustOpen(t, config)
			m := newModel()
			m.requireUsage(t, f)
			id := func() string { return []string{"", "a", "b", "c"}[r.IntN(4)] }
			for step := range 400 {
				if ids := slices.Sorted(maps.Keys(m.refs)); len(ids) > 0 && r.IntN(3) == 0 {
					gone := ids[r.IntN(len(ids))]
					require.NoError(t, f.Delete(context.Background(), &storage.StorageReference{ID: gone}))
					m.delete(gone)
				} else {
					m.storeRandom(t, f, scope, r, storage.MediaMetadata{SessionID: id(), ConversationID: id(), RunID: id(), UserID: id()})
				}
				if step%40 == 0 {
					m.requireUsage(t, f)
				}
			}
			m.requireUsage(t, f)
		})
	}
}

// storeRandom stores one of a few contents, and notes it under the blob that the
// scope gives it.
func (m *model) storeRandom(t *testing.T, f *engine.FileStore, scope engine.DedupScope, r *rand.Rand, meta storage.MediaMetadata) {
	t.Helper()
	data := blobOfSize(r.IntN(6))
	info := storage.MediaInfo{Type: []string{"image", "audio", "of our own"}[r.IntN(3)], MimeType: "image/png"}
	c := content(data)
	c.Type, c.MimeType = info.Type, info.MimeType
	ref, err := f.Store(context.Background(), c, meta)
	require.NoError(t, err)
	key := contentKey(data)
	switch scope {
	case engine.ScopeUser:
		key = inScope(key, meta.UserID, ref.ID)
	case engine.ScopeSession:
		key = inScope(key, meta.SessionID, ref.ID)
	case "none":
		key = ref.ID
	}
	m.refs[ref.ID] = &modelRef{blob: key, info: info, meta: meta}
	if m.blobs[key] == nil {
		m.blobs[key] = &modelBlob{data: data}
	}
	m.blobs[key].refs++
}

// blobOfSize is one of several contents, each of a size of its own.
func blobOfSize(n int) []byte { return bytesOf(100+n*n*7, byte(n)) }

func inScope(key, id, otherwise string) string {
	if id == "" {
		return otherwise
	}
	return key + " of " + id
}

// Beside stores and deletes of others, what nobody touches counts just as it is.
func TestUsageBesideTraffic(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone})
	const count = 700 // several pages
	for i := range count {
		mustStore(t, f, blobOfSize(i%50), storage.MediaMetadata{SessionID: "still"})
	}
	var still int64
	for i := range 50 {
		still += int64(len(blobOfSize(i)))
	}
	want := engine.Usage{Group: "still", References: count, LogicalBytes: still * count / 50, ExclusiveBytes: still}
	quit := make(chan struct{})
	var others sync.WaitGroup
	for i := range 4 {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				default:
				}
				ref, err := f.Store(ctx, content(fmt.Appendf(nil, "%d of %d", n, i)), storage.MediaMetadata{SessionID: fmt.Sprint(i)})
				if err == nil && n%3 > 0 {
					err = f.Delete(ctx, ref)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		report, err := f.Usage(ctx, engine.UsageBySession)
		require.NoError(t, err)
		require.Contains(t, report.Groups, want)
	}
	close(quit)
	others.Wait()
}

func TestUsageThatCannotBeTold(t *testing.T) {
	ctx := context.Background()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir()})
	_, err := f.Usage(ctx, "label")
	require.ErrorIs(t, err, storage.ErrInvalidQuery)
	require.ErrorContains(t, err, `usage by "label": want session, conversation, run, user or type`)
	_, err = f.UsageOf(ctx, "", "x")
	require.ErrorIs(t, err, storage.ErrInvalidQuery)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.Usage(canceled, engine.UsageByUser)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, f.Close())
	_, err = f.Usage(ctx, engine.UsageByType)
	require.ErrorIs(t, err, storage.ErrClosed)
}

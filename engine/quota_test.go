package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// unsized is a reader that tells nothing of its length.
type unsized struct{ io.Reader }

func streamOf(data []byte) io.Reader { return unsized{bytes.NewReader(data)} }

// requireLimited requires that a Store was refused by a limit, with these figures,
// said so, and left nothing.
func requireLimited(t *testing.T, f *engine.FileStore, dir string, before engine.Stats, err error, want engine.LimitError) {
	t.Helper()
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.ErrorContains(t, err, dir)
	limit := new(engine.LimitError)
	require.ErrorAs(t, err, &limit)
	require.Equal(t, want, *limit)
	for _, figure := range []int64{want.Bytes, want.Used, want.Asked} {
		require.ErrorContains(t, err, fmt.Sprint(figure))
	}
	require.ErrorContains(t, err, want.ID)
	requireNothingNew(t, f, dir, before)
}

func requireNothingNew(t *testing.T, f *engine.FileStore, dir string, before engine.Stats) {
	t.Helper()
	require.Empty(t, stagedFiles(t, f, dir))
	after := mustStats(t, f)
	before.IndexBytes = after.IndexBytes
	require.Equal(t, before, after)
	require.Len(t, blobFiles(t, dir), int(before.Blobs))
}

// Each quota lets in what fits to the byte, and nothing more until something goes.
func TestQuotas(t *testing.T) {
	ctx := context.Background()
	mine, other := storage.MediaMetadata{UserID: "u", SessionID: "s"}, storage.MediaMetadata{UserID: "v", SessionID: "r"}
	for _, c := range []struct {
		quota engine.Quota
		limit engine.Limit
		id    string
	}{
		{engine.Quota{TotalBytes: 5000}, engine.LimitTotal, ""},
		{engine.Quota{UserBytes: 5000}, engine.LimitUser, "u"},
		{engine.Quota{SessionBytes: 5000}, engine.LimitSession, "s"},
		{engine.Quota{TotalBytes: 1 << 40, UserBytes: 1 << 40, SessionBytes: 5000}, engine.LimitSession, "s"},
	} {
		t.Run(string(c.limit), func(t *testing.T) {
			h := new(heard)
			dir := t.TempDir()
			f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Quota: c.quota, EventListener: h.listener()})
			first := mustStore(t, f, bytesOf(3000, 1), mine)
			if c.limit != engine.LimitTotal {
				mustStore(t, f, bytesOf(5000, 9), other)
				mustStore(t, f, bytesOf(6000, 9), storage.MediaMetadata{})
			}
			before := mustStats(t, f)
			h.take()
			_, err := f.Store(ctx, content(bytesOf(2001, 2)), mine)
			requireLimited(t, f, dir, before, err, engine.LimitError{Limit: c.limit, ID: c.id, Bytes: 5000, Used: 3000, Asked: 2001})
			events := h.take()
			require.Len(t, events["refused"], 1)
			require.Equal(t, []any{c.limit, int64(2001), dir, engine.OpStore}, []any{events["refused"][0].Limit, events["refused"][0].Bytes, events["refused"][0].Store, events["refused"][0].Operation})
			require.Equal(t, "disk_space", events["failed"][0].Class)

			mustStore(t, f, bytesOf(2000, 2), mine)
			before = mustStats(t, f)
			_, err = f.Store(ctx, content([]byte("x")), mine)
			requireLimited(t, f, dir, before, err, engine.LimitError{Limit: c.limit, ID: c.id, Bytes: 5000, Used: 5000, Asked: 1})
			_, err = f.Store(ctx, content(bytesOf(2000, 2)), mine)
			if c.limit == engine.LimitTotal {
				require.NoError(t, err, "what is shared costs nothing")
			} else {
				requireLimited(t, f, dir, before, err, engine.LimitError{Limit: c.limit, ID: c.id, Bytes: 5000, Used: 5000, Asked: 2000})
			}
			require.NoError(t, f.Delete(ctx, first))
			mustStore(t, f, bytesOf(3000, 3), mine)
		})
	}
}

// A stream is refused as soon as it cannot fit, whatever its length may be; bytes
// that are there already need no room.
func TestQuotasOfStreams(t *testing.T) {
	ctx := context.Background()
	const limit = 8 << 20
	for _, c := range []struct {
		limit engine.Limit
		quota engine.Quota
		dedup bool
	}{
		{engine.LimitTotal, engine.Quota{TotalBytes: limit}, true},
		{engine.LimitTotal, engine.Quota{TotalBytes: limit}, false},
		{engine.LimitUser, engine.Quota{UserBytes: limit}, true},
		{engine.LimitSession, engine.Quota{SessionBytes: limit}, false},
	} {
		t.Run(fmt.Sprintf("%s/dedup=%v", c.limit, c.dedup), func(t *testing.T) {
			dir := t.TempDir()
			f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: c.dedup, Quota: c.quota})
			m := storage.MediaMetadata{UserID: "u", SessionID: "s"}
			store := func(r io.Reader) error {
				_, err := f.StoreReader(ctx, r, storage.MediaInfo{}, m)
				return err
			}
			big := bytesOf(5<<20, 1)
			require.NoError(t, store(streamOf(big)))
			before := mustStats(t, f)
			for name, r := range map[string]io.Reader{
				"endless": endless{}, "unknown length": streamOf(bytesOf(limit, 2)), "known length": bytes.NewReader(bytesOf(3<<20+1, 3)),
			} {
				err := store(r)
				require.ErrorIs(t, err, storage.ErrDiskSpace, name)
				limited := new(engine.LimitError)
				require.ErrorAs(t, err, &limited, name)
				require.Equal(t, c.limit, limited.Limit, name)
				require.Greater(t, limited.Used+limited.Asked, int64(limit), name)
				requireNothingNew(t, f, dir, before)
			}
			require.NoError(t, store(streamOf(bytesOf(3<<20, 4))), "to the byte")
			before = mustStats(t, f)
			err := store(streamOf(big))
			if c.limit == engine.LimitTotal && c.dedup {
				require.NoError(t, err, "bytes that are there")
				file := filepath.Join(t.TempDir(), "file")
				require.NoError(t, os.WriteFile(file, big, 0o600))
				_, err = f.Store(ctx, &storage.MediaContent{FilePath: file}, m)
				require.NoError(t, err, "bytes that are there, in a file")
			} else {
				require.ErrorIs(t, err, storage.ErrDiskSpace)
				requireNothingNew(t, f, dir, before)
			}
		})
	}
}

// forbidden is where nothing may be written.
type forbidden struct {
	engine.Blobs
	t  *testing.T
	on atomic.Bool
}

func (b *forbidden) Stage(ctx context.Context, key storage.BlobKey, data []byte) error {
	if b.on.Load() {
		b.t.Errorf("%d bytes are staged", len(data))
	}
	return b.Blobs.Stage(ctx, key, data)
}

func (b *forbidden) Spool(ctx context.Context, id storage.UUID, r io.Reader) (string, error) {
	if b.on.Load() {
		b.t.Error("a stream is spooled")
	}
	return b.Blobs.Spool(ctx, id, r)
}

// What is known beforehand not to fit is refused before a byte is written.
func TestQuotaRefusesBeforeItWrites(t *testing.T) {
	ctx := context.Background()
	watched := &forbidden{t: t}
	config := engine.WithSeams(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Quota: engine.Quota{TotalBytes: 4 << 20}},
		func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			watched.Blobs = b
			return i, watched
		})
	f := mustOpen(t, config)
	mustStore(t, f, bytesOf(3<<20, 1), storage.MediaMetadata{})
	archive := archiveOf(t, func(f *engine.FileStore) { mustStore(t, f, bytesOf(2<<20, 5), storage.MediaMetadata{}) })
	watched.on.Store(true)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, bytesOf(2<<20, 2), 0o600))
	for name, store := range map[string]func() error{
		"data": func() error { _, err := f.Store(ctx, content(bytesOf(2<<20, 3)), storage.MediaMetadata{}); return err },
		"file": func() error {
			_, err := f.Store(ctx, &storage.MediaContent{FilePath: file}, storage.MediaMetadata{})
			return err
		},
		"reader of a known length": func() error {
			_, err := f.StoreReader(ctx, bytes.NewReader(bytesOf(2<<20, 4)), storage.MediaInfo{}, storage.MediaMetadata{})
			return err
		},
		"archive": func() error { _, err := f.Import(ctx, bytes.NewReader(archive)); return err },
	} {
		require.ErrorIs(t, store(), storage.ErrDiskSpace, name)
	}
	watched.on.Store(false)
}

// Who would fit but for another that is under way waits, and gets in when that
// fails, or is refused when it does not.
func TestQuotaWaitsForOthers(t *testing.T) {
	for _, fails := range []bool{true, false} {
		t.Run(fmt.Sprintf("fails=%v", fails), func(t *testing.T) {
			ctx := context.Background()
			reached, goOn := make(chan struct{}), make(chan struct{})
			var stopped atomic.Bool
			config := engine.WithFaults(engine.FileStoreConfig{BaseDir: t.TempDir(), Quota: engine.Quota{TotalBytes: 1000, UserBytes: 1000, SessionBytes: 1000}},
				func(_ context.Context, at engine.FaultPoint) error {
					if at != engine.FaultStaged || !stopped.CompareAndSwap(false, true) {
						return nil
					}
					close(reached)
					<-goOn
					if fails {
						return errors.New("this one fails")
					}
					return nil
				})
			f := mustOpen(t, config)
			letGo := sync.OnceFunc(func() { close(goOn) })
			defer letGo()
			m := storage.MediaMetadata{UserID: "u", SessionID: "s"}
			first, second, third := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { _, err := f.Store(ctx, content(bytesOf(600, 1)), m); first <- err }()
			<-reached
			go func() { _, err := f.Store(ctx, content(bytesOf(500, 2)), m); second <- err }()
			impatient, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			go func() { _, err := f.Store(impatient, content(bytesOf(500, 3)), m); third <- err }()
			require.ErrorIs(t, <-third, context.DeadlineExceeded)
			_, err := f.Store(ctx, content(bytesOf(1001, 4)), m)
			require.ErrorIs(t, err, storage.ErrDiskSpace, "what can never fit does not wait")
			mustStore(t, f, bytesOf(400, 5), storage.MediaMetadata{UserID: "v", SessionID: "v"})
			select {
			case err := <-second:
				t.Fatalf("did not wait: %v", err)
			default:
			}
			letGo()
			if fails {
				require.Error(t, <-first)
				require.NoError(t, <-second)
				require.Equal(t, int64(900), mustStats(t, f).PhysicalBytes)
				return
			}
			require.NoError(t, <-first)
			require.ErrorIs(t, <-second, storage.ErrDiskSpace)
			require.Equal(t, int64(1000), mustStats(t, f).PhysicalBytes)
		})
	}
}

// Streams that fit alone and not together do not wait for each other forever.
func TestQuotaOfStreamsAtOnce(t *testing.T) {
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone, Quota: engine.Quota{TotalBytes: 10 << 20, UserBytes: 1 << 30}})
	var stored atomic.Int64
	atOnce(t, 8, func(i int) error {
		_, err := f.StoreReader(context.Background(), streamOf(bytesOf(4<<20, byte(i+1))), storage.MediaInfo{}, storage.MediaMetadata{UserID: "u"})
		if err == nil {
			stored.Add(1)
		} else if !errors.Is(err, storage.ErrDiskSpace) {
			return err
		}
		return nil
	})
	require.Equal(t, int64(2), stored.Load())
	require.Equal(t, int64(8<<20), mustStats(t, f).PhysicalBytes)
}

// A blob whose file is lost is healed in a full store, for it is in the total.
func TestQuotaLetsHeal(t *testing.T) {
	h := new(heard)
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Quota: engine.Quota{TotalBytes: 5000}, EventListener: h.listener()}
	f := mustOpen(t, config)
	ref := mustStore(t, f, bytesOf(5000, 1), storage.MediaMetadata{})
	require.NoError(t, f.Checkpoint(context.Background()))
	require.NoError(t, os.Remove(filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))))
	h.take()
	mustStore(t, f, bytesOf(5000, 1), storage.MediaMetadata{})
	h.only(t, "healed")
	require.True(t, bytes.Equal(bytesOf(5000, 1), mustRetrieve(t, f, ref)))
	require.Equal(t, int64(5000), mustStats(t, f).PhysicalBytes)
}

// interrupted is an index that does something before it makes the first staged
// addition that comes once it is armed.
type interrupted struct {
	engine.Index
	armed atomic.Bool
	do    func()
}

func (i *interrupted) Add(ctx context.Context, add *storage.Addition) (storage.BlobRow, error) {
	if add.Staged && i.armed.CompareAndSwap(true, false) {
		i.do()
	}
	return i.Index.Add(ctx, add)
}

// The row of a blob may go just when its bytes are brought to heal it, which makes
// them new ones: nobody else gets the room meanwhile.
func TestQuotaWhenWhatIsHealedGoes(t *testing.T) {
	ctx := context.Background()
	between := &interrupted{}
	config := engine.WithSeams(engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Quota: engine.Quota{TotalBytes: 5000}},
		func(i engine.Index, b engine.Blobs) (engine.Index, engine.Blobs) {
			between.Index = i
			return between, b
		})
	f := mustOpen(t, config)
	ref := mustStore(t, f, bytesOf(5000, 1), storage.MediaMetadata{})
	require.NoError(t, f.Checkpoint(ctx))
	require.NoError(t, os.Remove(filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))))
	deleted, other := make(chan error, 1), make(chan error, 1)
	between.do = func() {
		go func() { deleted <- f.Delete(ctx, ref) }() // it waits with the file for this Store
		for mustStats(t, f).Blobs > 0 {
			time.Sleep(time.Millisecond)
		}
		go func() { _, err := f.Store(ctx, content(bytesOf(5000, 2)), storage.MediaMetadata{}); other <- err }()
		time.Sleep(50 * time.Millisecond)
	}
	between.armed.Store(true)
	mustStore(t, f, bytesOf(5000, 1), storage.MediaMetadata{})
	require.NoError(t, <-deleted)
	require.ErrorIs(t, <-other, storage.ErrDiskSpace)
	require.Equal(t, int64(5000), mustStats(t, f).PhysicalBytes)
}

// A quota that is set below what is there stops stores and nothing else.
func TestQuotaLowered(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir()}
	f := mustOpen(t, config)
	a, b := mustStore(t, f, bytesOf(3000, 1), someIDs), mustStore(t, f, bytesOf(3000, 2), someIDs)
	require.NoError(t, f.Close())
	config.Quota = engine.Quota{TotalBytes: 4000, UserBytes: 4000, SessionBytes: 4000}
	f = mustOpen(t, config)
	require.Len(t, mustRetrieve(t, f, a), 3000)
	_, err := f.Store(context.Background(), content([]byte("x")), someIDs)
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	require.NoError(t, f.Delete(context.Background(), b))
	mustStore(t, f, bytesOf(1000, 3), someIDs)
}

func TestQuotaOfWrappedPCM(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	f := mustOpen(t, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, WrapPCM: true, Quota: engine.Quota{TotalBytes: 3<<20 + 44}})
	info := storage.MediaInfo{MimeType: "audio/pcm;rate=44100;bits=24;channels=2"} // whose frames do not fill a buffer
	_, err := f.StoreReader(ctx, streamOf(bytesOf(3<<20+6, 1)), info, storage.MediaMetadata{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	requireEmpty(t, f, dir)
	_, err = f.StoreReader(ctx, streamOf(bytesOf(3<<20, 1)), info, storage.MediaMetadata{})
	require.NoError(t, err)
	before := mustStats(t, f)
	require.Equal(t, int64(3<<20+44), before.PhysicalBytes)
	_, err = f.StoreReader(ctx, streamOf(bytesOf(1002, 2)), info, storage.MediaMetadata{})
	require.ErrorIs(t, err, storage.ErrDiskSpace)
	requireNothingNew(t, f, dir, before)
}

func TestLimitsThatCannotBe(t *testing.T) {
	for field, config := range map[string]engine.FileStoreConfig{
		"Quota.TotalBytes -1":   {Quota: engine.Quota{TotalBytes: -1}},
		"Quota.UserBytes -2":    {Quota: engine.Quota{UserBytes: -2}},
		"Quota.SessionBytes -3": {Quota: engine.Quota{SessionBytes: -3}},
		"MinFreeBytes -4":       {MinFreeBytes: -4},
	} {
		config.BaseDir = t.TempDir()
		_, err := engine.Open(context.Background(), config)
		require.ErrorIs(t, err, storage.ErrInvalidConfig)
		require.ErrorContains(t, err, field+" is negative")
	}
}

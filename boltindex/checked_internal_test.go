package boltindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// indexOf opens the index in dir, in a test that may leave it unclosed.
func indexOf(t *testing.T, dir string) *Index {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() }) // was only read from
	x, err := Open(context.Background(), Config{Root: root, Create: true, NoSync: true})
	require.NoError(t, err)
	return x
}

func refOf(i int) storage.UUID { return storage.UUID{0: byte(i >> 8), 1: byte(i), 15: byte(i % 7)} }

// fillRefs adds references, few of which fit into a page.
func fillRefs(t *testing.T, x *Index, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		require.NoError(t, addRef(x, i))
	}
}

func addRef(x *Index, i int) error {
	u := refOf(i)
	key := storage.DigestKey(storage.Digest{0: u[15], 31: 1})
	_, err := x.Add(context.Background(), &storage.Addition{
		Ref: storage.RefRow{UUID: u, Blob: key, Metadata: storage.MediaMetadata{
			SessionID: fmt.Sprint(i % 5), Labels: map[string]string{"room": strings.Repeat("x", 520)},
		}},
		Blob:   storage.BlobRow{Key: key, Path: fmt.Sprintf("%06x-%s.png", u[15], u), Organization: storage.OrganizationFlat, Size: 1},
		Staged: true,
	})
	return err
}

func removeRef(t *testing.T, x *Index, i int) {
	t.Helper()
	u := refOf(i)
	removal, err := x.Remove(context.Background(), storage.ID{Hash: [3]byte{2: u[15]}, UUID: u})
	require.NoError(t, err)
	require.True(t, removal.Found)
}

// Every page that bbolt has replaced in a transaction was compared with its sum
// before: also the ones that it merged others with.
func TestEveryPageThatIsWrittenAnewWasChecked(t *testing.T) {
	good := t.TempDir()
	x := indexOf(t, good)
	const refs = 1000
	fillRefs(t, x, 0, refs)
	require.NoError(t, x.flush())
	last := lastBranch(t, x)
	require.NoError(t, x.Close())
	replaced := 0
	for seed := range uint64(40) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
		x := indexOf(t, dir)
		before, _, err := readMetas(x.bolt.file)
		require.NoError(t, err)
		inUse := map[uint64]bool{}
		require.NoError(t, newPageWalk(x.bolt.file, before, func(p page) error {
			inUse[p.id()] = p.id() != before.free
			return nil
		}).run())

		random := rand.New(rand.NewPCG(seed, 0))
		from, to, share := last+1, last+10, 10
		if seed%2 == 1 {
			from = random.IntN(refs)
			to, share = min(from+1+random.IntN(60), refs), 1+random.IntN(10)
		}
		for i := from; i < to; i++ {
			if random.IntN(10) < share {
				removeRef(t, x, i)
			}
		}
		require.NoError(t, x.flush())
		after, _, err := readMetas(x.bolt.file)
		require.NoError(t, err)
		p, err := readPage(x.bolt.file, after, after.free)
		require.NoError(t, err)
		free, err := freePages(p, after.end)
		require.NoError(t, err)
		for _, id := range free {
			if inUse[id] {
				replaced++
				require.NotZero(t, x.bolt.pages.now.Load().checked[id/64].Load()&(1<<(id%64)), "seed %d: page %d was not checked", seed, id)
			}
		}
		require.NoError(t, x.Close())
	}
	require.Greater(t, replaced, 300, "pages that were replaced")
}

// lastBranch is the first reference below the last branch above leaves. That branch
// is small: when the leaves at its beginning become so too, bbolt may merge it with
// the one before, and they with that one's.
func lastBranch(t *testing.T, x *Index) (ref int) {
	t.Helper()
	require.NoError(t, x.viewBolt(func(s *state) error {
		p, err := s.root(s.trees[bucketRefs])
		require.NoError(t, err)
		require.False(t, p.leaf())
		require.Greater(t, p.count(), 1)
		key := p.key(p.count() - 1)
		ref = int(key[0])<<8 | int(key[1])
		return nil
	}))
	return ref
}

// promptly ends the test when fn hangs.
func promptly(t *testing.T, what string, fn func()) {
	t.Helper()
	const long = 20 * time.Second
	defer time.AfterFunc(long, func() { panic(what + " hangs") }).Stop()
	fn()
}

// A file that is cut while it is open makes calls fail. None hangs, nor does Close.
func TestFileThatIsCutWhileOpen(t *testing.T) {
	for _, flushed := range []bool{true, false} {
		dir := t.TempDir()
		x := indexOf(t, dir)
		fillRefs(t, x, 0, 200)
		if flushed {
			require.NoError(t, x.flush())
			require.NoError(t, x.flush())
		} else {
			_, err := x.Counters(context.Background())
			require.NoError(t, err)
		}
		require.NoError(t, os.Truncate(filepath.Join(dir, fileName), 8192))
		promptly(t, "reading", func() {
			_, err := x.Blobs(context.Background(), "", 10)
			if flushed {
				require.ErrorIs(t, err, storage.ErrCorrupted)
			}
		})
		promptly(t, "changing", func() {
			if flushed {
				require.ErrorIs(t, addRef(x, 200), storage.ErrCorrupted)
			} else {
				require.Error(t, x.flush())
			}
		})
		promptly(t, "verifying", func() {
			findings, err := x.Verify(context.Background())
			require.True(t, err != nil || len(findings) > 0)
		})
		promptly(t, "closing", func() { _ = x.Close() }) // whatever it says
	}
}

// A page whose sum is not known for now is used, and compared once the sum is known.
func TestPagesWithoutSumsAreNotTakenForChecked(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 0, 50)
	require.NoError(t, x.Close())
	x = indexOf(t, dir)
	now, _, err := readMetas(x.bolt.file)
	require.NoError(t, err)
	p, err := readPage(x.bolt.file, now, now.root)
	require.NoError(t, err)
	bad := page(bytes.Clone(p))
	bad[len(bad)-1] ^= 1

	compared, err := x.bolt.pages.check(bad, now.txid)
	require.ErrorIs(t, err, storage.ErrCorrupted)
	require.True(t, compared)
	compared, err = x.bolt.pages.check(bad, now.txid+1) // which failed to be summed
	require.NoError(t, err)
	require.False(t, compared)
	compared, err = x.bolt.pages.check(p, now.txid+1)
	require.NoError(t, err)
	require.True(t, compared)

	// One that is on its way is waited for.
	x.bolt.pages.sums.expect()
	go func() {
		time.Sleep(50 * time.Millisecond)
		x.bolt.pages.sums.take(now.txid+1, []pageSum{sumOf(bad)})
	}()
	compared, err = x.bolt.pages.check(bad, now.txid+1)
	require.NoError(t, err)
	require.True(t, compared)
	x.bolt.pages.sums.take(now.txid, nil)
	require.NoError(t, x.Close())
}

// A sector is read whole or not at all while it is written.
func TestSectorsAreNotTorn(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	s := x.bolt.pages.sums
	write := func(times int) (err error) {
		for i := range times {
			err = errors.Join(err, s.put(3, bytes.Repeat([]byte{byte(i)%100 + 1}, sumSector)))
		}
		return err
	}
	require.NoError(t, write(1))
	const many = 20_000
	done := make(chan error, 1)
	go func() { done <- write(many) }()
	for range many {
		sector, err := s.read(3)
		require.NoError(t, err)
		require.False(t, isZero(sector), "a sector that was torn has no sums")
	}
	require.NoError(t, <-done)
	require.NoError(t, x.Close())
}

// Pages whose sums are damaged can be used. That is logged once for all their uses,
// and Verify says what to do.
func TestDamagedSumsAreToldOnce(t *testing.T) {
	dir := t.TempDir()
	x := indexOf(t, dir)
	fillRefs(t, x, 0, 50)
	require.NoError(t, x.Close())
	name := filepath.Join(dir, sumsName)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, flipByte(name, data, sumSector+40))

	var log bytes.Buffer
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, root.Close()) }()
	x, err = Open(context.Background(), Config{Root: root, NoSync: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	for i := range 50 {
		removeRef(t, x, i)
	}
	// Once by the look before bbolt opens, once since.
	require.Equal(t, 2, strings.Count(log.String(), "level=ERROR"), log.String())
	findings, err := x.Verify(context.Background())
	require.NoError(t, err)
	require.Len(t, findings, 1)
	require.Contains(t, findings[0].Detail, "remove this file")
	require.NoError(t, x.Close())
}

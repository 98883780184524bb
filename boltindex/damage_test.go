package boltindex_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// pageSize is what the damage below assumes of a page.
const pageSize = 4096

// sampleIndex is the file of an index with several levels of pages, free pages
// and debts, without the room for growth behind its last page.
func sampleIndex(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	x := mustOpenConfig(t, dir, boltindex.Config{NoSync: true})
	for i := range byte(200) {
		u := storage.UUID{0: i + 1, 15: i % 60}
		mustAdd(t, x, u, storage.MediaMetadata{
			SessionID: fmt.Sprint("session ", i%7), ConversationID: fmt.Sprint("conversation ", i%3), UserID: "u",
			Labels: map[string]string{"file": fmt.Sprintf("picture %040d.png", i)},
		})
		if i%4 == 0 {
			_, err := x.Remove(context.Background(), idOf(u))
			require.NoError(t, err)
		}
	}
	mustClose(t, x)
	var size int64
	inspect(t, dir, func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	data, err := os.ReadFile(path(dir))
	require.NoError(t, err)
	require.Zero(t, size%pageSize, "pages of another size")
	return data[:size]
}

func TestFormatVersions(t *testing.T) {
	for what, c := range map[string]struct {
		edit func(*bolt.Tx) error
		want error
	}{
		"a later version": {func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, 2))
		}, storage.ErrVersion},
		"version 0": {func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), make([]byte, 4))
		}, storage.ErrVersion},
		"no version": {func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("format")) }, storage.ErrCorrupted},
		"no meta":    {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("meta")) }, storage.ErrCorrupted},
		"no refs":    {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("refs")) }, storage.ErrCorrupted},
		"no mirrors": {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("mirrors")) }, storage.ErrCorrupted},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			mustClose(t, mustOpen(t, dir))
			edit(t, dir, c.edit)
			before, err := os.ReadFile(path(dir))
			require.NoError(t, err)
			for range 2 {
				_, err = open(t.Context(), t, dir, boltindex.Config{Create: true})
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, path(dir))
			}
			after, err := os.ReadFile(path(dir))
			require.NoError(t, err)
			require.Equal(t, before, after, "a refused index is left as it is")
		})
	}
}

func TestRowVersions(t *testing.T) {
	u := storage.UUID{1}
	add := addition(u, storage.MediaMetadata{SessionID: "s"})
	for bucket, key := range map[string][]byte{"blobs": []byte(add.Blob.Key), "refs": u[:], "meta": []byte("counters")} {
		for _, row := range [][]byte{{2, 0xa0}, {0}, {}, {1}, {1, 0xff}} {
			dir := t.TempDir()
			x := mustOpen(t, dir)
			mustAdd(t, x, u, storage.MediaMetadata{SessionID: "s"})
			mustClose(t, x)
			edit(t, dir, func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, row) })
			want := storage.ErrCorrupted
			if len(row) > 0 && row[0] != 1 {
				want = storage.ErrVersion
			}
			x = mustOpen(t, dir)
			if bucket == "meta" {
				_, err := x.Counters(t.Context())
				require.ErrorIs(t, err, want)
				_, err = x.Add(t.Context(), addition(storage.UUID{2}, storage.MediaMetadata{}))
				require.ErrorIs(t, err, want)
				require.Equal(t, []storage.UUID{u}, uuids(t, x))
			} else {
				_, _, err := x.Ref(t.Context(), idOf(u))
				require.ErrorIs(t, err, want, "%s %x", bucket, row)
				_, err = x.Remove(t.Context(), idOf(u))
				require.ErrorIs(t, err, want, "%s %x", bucket, row)
				findings, err := x.Verify(t.Context())
				require.NoError(t, err)
				require.NotEmpty(t, findings)
			}
			require.NoError(t, x.Close())
		}
	}
}

// An opening that fails lets go of the file, so that the next one says the same
// and a repaired file opens.
func TestFailedOpenLetsGo(t *testing.T) {
	good := sampleIndex(t)
	noise := make([]byte, len(good))
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	for what, bad := range map[string][]byte{
		"text":              []byte("this is no index\n"),
		"noise":             noise,
		"zeros":             make([]byte, len(good)),
		"empty":             {},
		"one byte":          good[:1],
		"meta pages only":   good[:2*pageSize],
		"three pages":       good[:3*pageSize],
		"half":              good[:len(good)/2/pageSize*pageSize],
		"half, mid-page":    good[:len(good)/2/pageSize*pageSize+100],
		"pages behind meta": append(append([]byte{}, good[:2*pageSize]...), make([]byte, len(good)-2*pageSize)...),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(path(dir), bad, 0o600))
			// In a process of its own: it may not survive.
			c := startChild(t, "damage", dir)
			for range 2 {
				_, err := io.WriteString(c.in, "open\n")
				require.NoError(t, err)
				result, ok := c.line()
				if !ok {
					require.Error(t, c.cmd.Wait())
					require.Fail(t, "the process died", head(c.errors.String()))
				}
				require.Equal(t, "corrupted", result)
			}
			require.NoError(t, os.WriteFile(path(dir), good, 0o600))
			_, err := io.WriteString(c.in, "open\n")
			require.NoError(t, err)
			result, _ := c.line()
			require.Equal(t, "opened", result)
			require.NoError(t, c.in.Close())
			require.NoError(t, c.cmd.Wait())
		})
	}
}

// Damaged pages, whatever is in them, cost no process its life: opening and
// reading answer with an error of this project or work.
func TestDamagedPages(t *testing.T) {
	for kind := range misplaced {
		t.Run(damageKinds[kind], func(t *testing.T) { survive(t, kind, 60) })
	}
}

// A page may also be whole and in the wrong place, where a tree of pages can
// lead back to itself.
func TestMisplacedPages(t *testing.T) { survive(t, misplaced, 60) }

// survive has a process use that many copies of an index, each damaged in
// another way of one kind.
func survive(t *testing.T, kind, seeds int) {
	good := sampleIndex(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "good"), good, 0o600))
	c := startChild(t, "damage", dir)
	died := 0
	for seed := range seeds {
		_, err := fmt.Fprintln(c.in, kind, seed)
		require.NoError(t, err)
		result, ok := c.line()
		if !ok {
			require.Error(t, c.cmd.Wait())
			t.Errorf("seed %d: the process died: %s", seed, head(c.errors.String()))
			if died++; died == 3 {
				t.Fatal("and so on")
			}
			c = startChild(t, "damage", dir)
			continue
		}
		if result != "clean" {
			t.Errorf("seed %d: %s", seed, result)
		}
	}
	require.NoError(t, c.in.Close())
	require.NoError(t, c.cmd.Wait())
}

// head is the beginning of what a process said when it died.
func head(s string) string { return s[:min(len(s), 2000)] }

// Kinds of damage.
const (
	flippedBits = iota
	damagedHeader
	zeroedPage
	cutFile
	noisyPage
	noPointer
	misplaced
)

var damageKinds = [...]string{"flipped bits", "a damaged page header", "a page of zeros", "a file cut short", "a page of noise", "a pointer to no page", "a page in place of another"}

// damaged is a copy of an index with damage of a kind.
func damaged(kind int, seed uint64, good []byte) []byte {
	random := rand.New(rand.NewPCG(seed, uint64(kind)))
	data := append([]byte{}, good...)
	page := func() []byte {
		i := random.IntN(len(data) / pageSize)
		return data[i*pageSize : (i+1)*pageSize]
	}
	switch kind {
	case flippedBits:
		for range 1 + random.IntN(8) {
			data[random.IntN(len(data))] ^= 1 << random.IntN(8)
		}
	case damagedHeader:
		// With it the positions of the first rows.
		p := page()
		for range 4 {
			p[random.IntN(64)] = byte(random.Uint32())
		}
	case zeroedPage:
		clear(page())
	case cutFile:
		data = data[:random.IntN(len(data))]
	case noisyPage:
		p := page()
		for i := range p {
			p[i] = byte(random.Uint32())
		}
	case noPointer:
		var branches [][]byte
		for p := data; len(p) >= pageSize; p = p[pageSize:] {
			if binary.NativeEndian.Uint16(p[8:]) == 1 {
				branches = append(branches, p)
			}
		}
		p := branches[random.IntN(len(branches))]
		clear(p[16+16*random.IntN(int(binary.NativeEndian.Uint16(p[10:])))+8:][:8])
	case misplaced:
		copy(page(), page())
	}
	return data
}

// damageChild answers each line of its input with one line: "open" opens the
// index in dir, a kind of damage and a seed make a copy and use it.
func damageChild(dir string, in io.Reader) {
	debug.SetMaxStack(64 << 20)
	go endRunaway()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if lines.Text() == "open" {
			fmt.Println(tryOpen(dir))
			continue
		}
		var kind int
		var seed uint64
		_, err := fmt.Sscan(lines.Text(), &kind, &seed)
		if err == nil {
			err = useDamaged(dir, kind, seed)
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("clean")
		}
	}
}

// endRunaway ends the process when it takes more memory than any of this can
// need, before the machine suffers.
func endRunaway() {
	for range time.Tick(20 * time.Millisecond) {
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc > 2<<30 {
			buf := make([]byte, 1<<16)
			fmt.Fprintf(os.Stderr, "memory without end: %s\n", buf[:runtime.Stack(buf, true)])
			os.Exit(3)
		}
	}
}

func tryOpen(dir string) string {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err.Error()
	}
	x, err := boltindex.Open(context.Background(), boltindex.Config{Root: root})
	switch {
	case err == nil:
		err = x.Close()
		if err == nil {
			return "opened"
		}
	case errors.Is(err, storage.ErrCorrupted):
		return "corrupted"
	}
	return err.Error()
}

// useDamaged opens a damaged copy, asks everything of it and, where Verify finds
// nothing, changes it. The error is one that should not have been returned.
func useDamaged(dir string, kind int, seed uint64) error {
	good, err := os.ReadFile(filepath.Join(dir, "good"))
	if err != nil {
		return err
	}
	// A new file each time, so that nothing of the last one is in the way.
	work, err := os.MkdirTemp(dir, "damage")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // t.TempDir removes the rest
	if err := os.WriteFile(path(work), damaged(kind, seed, good), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "reserve"), nil, 0o600); err != nil {
		return err
	}
	root, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read from
	x, err := boltindex.Open(context.Background(), boltindex.Config{Root: root, NoSync: true})
	if err != nil {
		return unexpected("open", err)
	}
	for _, read := range reads(x) {
		if err := unexpected(read.what, read.run(context.Background())); err != nil {
			return err
		}
	}
	// bbolt may need any amount of memory to change a damaged tree, so only
	// damage that is in no tree can be asked of changes.
	findings, err := x.Verify(context.Background())
	if err := unexpected("verify", err); err != nil {
		return err
	}
	if len(findings) == 0 {
		for _, change := range changes(x) {
			if err := change.run(context.Background()); err != nil {
				return fmt.Errorf("%s, where Verify found nothing: %w", change.what, err)
			}
		}
	}
	return unexpected("close", x.Close())
}

type use struct {
	what string
	run  func(context.Context) error
}

// sampleUUID is a reference that the sample index has.
var sampleUUID = storage.UUID{0: 42, 15: 41}

// reads is every method that reads.
func reads(x *boltindex.Index) []use {
	refs := func(filter storage.RefFilter) func(context.Context) error {
		return func(ctx context.Context) error {
			after, more, err := storage.UUID{}, true, error(nil)
			for pages := 0; more && err == nil && pages < 1000; pages++ {
				_, after, more, err = x.Refs(ctx, filter, after, 50)
			}
			return err
		}
	}
	key := addition(sampleUUID, storage.MediaMetadata{}).Blob.Key
	return []use{
		{"Counters", func(ctx context.Context) error { _, err := x.Counters(ctx); return err }},
		{"Size", func(ctx context.Context) error { _, err := x.Size(ctx); return err }},
		{"Blob", func(ctx context.Context) error { _, err := x.Blob(ctx, key); return err }},
		{"Ref", func(ctx context.Context) error { _, _, err := x.Ref(ctx, idOf(sampleUUID)); return err }},
		{"Refs", refs(storage.RefFilter{})},
		{"Refs of a session", refs(storage.RefFilter{SessionID: "session 3"})},
		{"Refs of a user", refs(storage.RefFilter{UserID: "u"})},
		{"Blobs", func(ctx context.Context) error { _, err := x.Blobs(ctx, "", 1000); return err }},
		{"Debt", func(ctx context.Context) error { _, err := x.Debt(ctx); return err }},
	}
}

// changes is every method that changes rows.
func changes(x *boltindex.Index) []use {
	add := addition(storage.UUID{0: 250, 15: 200}, storage.MediaMetadata{SessionID: "session 3"})
	return []use{
		{"Add", func(ctx context.Context) error { _, err := x.Add(ctx, add); return err }},
		{"Remove", func(ctx context.Context) error { _, err := x.Remove(ctx, idOf(sampleUUID)); return err }},
		{"Settle", func(ctx context.Context) error {
			return x.Settle(ctx, storage.Debt{Mirrors: []storage.Mirror{{UUID: add.Ref.UUID, Blob: add.Blob.Key}}})
		}},
	}
}

// unexpected is an error that damage does not explain.
func unexpected(what string, err error) error {
	for _, known := range []error{nil, storage.ErrCorrupted, storage.ErrVersion, storage.ErrNotFound, storage.ErrIO, storage.ErrNoStore} {
		if errors.Is(err, known) && !(what == "open" && errors.Is(err, fs.ErrNotExist)) {
			return nil
		}
	}
	return fmt.Errorf("%s: error of no known kind: %w", what, err)
}

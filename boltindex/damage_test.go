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
// and debts, without the room for growth behind its last page, and the files
// beside it.
func sampleIndex(t testing.TB) (data []byte, beside map[string][]byte) {
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
	beside = map[string][]byte{}
	for _, name := range besideIndex {
		beside[name], err = os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
	}
	return data[:size], beside
}

var besideIndex = []string{"index.sums", "log.0", "log.1"}

func TestFormatVersions(t *testing.T) {
	for what, c := range map[string]struct {
		edit func(*bolt.Tx) error
		want error
	}{
		"a later version": {func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, 5))
		}, storage.ErrVersion},
		"the version before": {func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, 3))
		}, storage.ErrVersion},
		"version 0": {func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), make([]byte, 4))
		}, storage.ErrVersion},
		"no version": {func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("format")) }, storage.ErrCorrupted},
		"no meta":    {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("meta")) }, storage.ErrCorrupted},
		"no refs":    {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("refs")) }, storage.ErrCorrupted},
		"no digests": {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("by_digest")) }, storage.ErrCorrupted},
		"no expiry":  {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("by_expiry")) }, storage.ErrCorrupted},
		"no usage":   {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("usage")) }, storage.ErrCorrupted},
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
	good, _ := sampleIndex(t)
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

// Damaged pages, whatever is in them, are never taken for good: opening, reading
// and changing answer with ErrCorrupted or as if there were no damage, and Verify
// finds it.
func TestDamagedPages(t *testing.T) {
	for kind, name := range damageKinds {
		t.Run(name, func(t *testing.T) { survive(t, kind, true) })
	}
}

// Where the sums are lost as well, wrong rows may be read. But it costs no process
// its life.
func TestDamagedPagesWithoutSums(t *testing.T) {
	for kind, name := range damageKinds {
		t.Run(name, func(t *testing.T) { survive(t, kind, false) })
	}
}

// survive has a process use copies of an index, each damaged in another way of
// one kind.
func survive(t *testing.T, kind int, withSums bool) {
	good, beside := sampleIndex(t)
	if !withSums {
		delete(beside, "index.sums")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "good"), good, 0o600))
	for name, data := range beside {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	c := startChild(t, "damage", dir)
	died := 0
	for seed := range 60 {
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
	misplaced // where a tree of pages can lead back to itself
	badFreeList
)

var damageKinds = [...]string{
	"flipped bits", "a damaged page header", "a page of zeros", "a file cut short", "a page of noise", "a pointer to no page",
	"a page in place of another", "a damaged free list",
}

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
	case badFreeList:
		for p := data; len(p) >= pageSize; p = p[pageSize:] {
			if binary.NativeEndian.Uint16(p[8:]) == 0x10 { // all there are: old ones do no harm
				p[10+random.IntN(30)] ^= 1 << random.IntN(8)
			}
		}
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

// useDamaged opens a damaged copy, asks everything of it and changes it. The error
// is that of something that should not have been.
func useDamaged(dir string, kind int, seed uint64) error {
	good, err := os.ReadFile(filepath.Join(dir, "good"))
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, "index.sums"))
	withSums := err == nil
	want := map[string]string{}
	if err := useCopy(dir, good, func(x *boltindex.Index) error { return answers(x, want, nil) }); err != nil {
		return fmt.Errorf("without damage: %w", err)
	}
	bad := damaged(kind, seed, good)
	opened := false
	err = useCopy(dir, bad, func(x *boltindex.Index) error {
		opened = true
		got := map[string]string{}
		if !withSums {
			want = got // no way to tell
		}
		if err := answers(x, got, want); err != nil {
			return err
		}
		findings, err := x.Verify(context.Background())
		if err := unexpected("verify", err); err != nil {
			return err
		}
		if withSums && err == nil && len(findings) == 0 && inUse(good, bad) {
			return errors.New("Verify finds nothing")
		}
		for _, change := range changes(x) {
			if _, err := change.run(context.Background()); unexpected(change.what, err) != nil || err != nil && len(findings) == 0 {
				return fmt.Errorf("%s: %w", change.what, err)
			}
		}
		return unexpected("flush", x.Flush())
	})
	if opened {
		return err
	}
	return unexpected("open", err)
}

// answers asks everything of an index, and compares what it does not refuse with
// what is wanted, if anything is.
func answers(x *boltindex.Index, got, want map[string]string) error {
	for _, read := range reads(x) {
		answer, err := read.run(context.Background())
		if err := unexpected(read.what, err); err != nil {
			return err
		}
		if errors.Is(err, storage.ErrCorrupted) {
			continue
		}
		got[read.what] = fmt.Sprintf("%+v %v", answer, err)
		if want != nil && want[read.what] != got[read.what] && read.what != "Size" {
			return fmt.Errorf("%s answers %s in place of %s", read.what, got[read.what], want[read.what])
		}
	}
	return nil
}

// inUse says whether a page differs that the index uses: all but those in its list
// of free pages, and the older meta page. When the newer one is damaged, bbolt
// begins with the older, and the log has what came after.
func inUse(good, bad []byte) bool {
	at := 0
	if txid := func(at int) uint64 { return binary.NativeEndian.Uint64(good[at+16+48:]) }; txid(pageSize) > txid(0) {
		at = pageSize
	}
	meta := good[at : at+16+64]
	if len(bad) < at+pageSize || string(meta) != string(bad[at:at+len(meta)]) {
		return false
	}
	free := good[binary.NativeEndian.Uint64(meta[16+32:])*pageSize:]
	unused := map[uint64]bool{0: true, 1: true} // bbolt checks the meta pages itself
	for i := range binary.NativeEndian.Uint16(free[10:]) {
		unused[binary.NativeEndian.Uint64(free[16+8*int(i):])] = true
	}
	for i := range len(good) / pageSize {
		if at := i * pageSize; !unused[uint64(i)] && (len(bad) < at+pageSize || string(good[at:at+pageSize]) != string(bad[at:at+pageSize])) {
			return true
		}
	}
	return false
}

// useCopy opens an index of these bytes, beside what dir has.
func useCopy(dir string, data []byte, fn func(*boltindex.Index) error) error {
	// A new directory each time, so that nothing of the last one is in the way, in
	// memory where that can be: making hundreds of them takes a disk long.
	parent := dir
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		parent = "/dev/shm"
	}
	work, err := os.MkdirTemp(parent, "mediabolt-damage-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // nothing is of use in it
	if err := os.WriteFile(path(work), data, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "reserve"), nil, 0o600); err != nil {
		return err
	}
	for _, name := range besideIndex {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), data, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	root, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read from
	x, err := boltindex.Open(context.Background(), boltindex.Config{Root: root, NoSync: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(x), unexpected("close", x.Close()))
}

type use struct {
	what string
	run  func(context.Context) (any, error)
}

// sampleUUID is a reference that the sample index has.
var sampleUUID = storage.UUID{0: 42, 15: 41}

// reads is every method that reads.
func reads(x *boltindex.Index) []use {
	refs := func(filter storage.RefFilter) func(context.Context) (any, error) {
		return func(ctx context.Context) (any, error) {
			var all []storage.RefPair
			after, more, err := storage.UUID{}, true, error(nil)
			for pages := 0; more && err == nil && pages < 1000; pages++ {
				var page []storage.RefPair
				page, after, more, err = x.Refs(ctx, filter, after, 50)
				all = append(all, page...)
			}
			return all, err
		}
	}
	key := addition(sampleUUID, storage.MediaMetadata{}).Blob.Key
	return []use{
		{"Counters", func(ctx context.Context) (any, error) { return x.Counters(ctx) }},
		{"Size", func(ctx context.Context) (any, error) { return x.Size(ctx) }},
		{"Blob", func(ctx context.Context) (any, error) { return x.Blob(ctx, key) }},
		{"Ref", func(ctx context.Context) (any, error) {
			ref, blob, err := x.Ref(ctx, idOf(sampleUUID))
			return storage.RefPair{Ref: ref, Blob: blob}, err
		}},
		{"Refs", refs(storage.RefFilter{})},
		{"Refs of a session", refs(storage.RefFilter{SessionID: "session 3"})},
		{"Refs of a user", refs(storage.RefFilter{UserID: "u"})},
		{"Blobs", func(ctx context.Context) (any, error) { return x.Blobs(ctx, "", 1000) }},
		{"Debt", func(ctx context.Context) (any, error) { return x.Debt(ctx) }},
	}
}

// changes is every method that changes rows.
func changes(x *boltindex.Index) []use {
	add := addition(storage.UUID{0: 250, 15: 200}, storage.MediaMetadata{SessionID: "session 3"})
	return []use{
		{"Add", func(ctx context.Context) (any, error) { return x.Add(ctx, add) }},
		{"Remove", func(ctx context.Context) (any, error) { return x.Remove(ctx, idOf(sampleUUID)) }},
		{"Settle", func(ctx context.Context) (any, error) {
			return nil, x.Settle(ctx, storage.Debt{Mirrors: []storage.Mirror{{UUID: add.Ref.UUID, Blob: add.Blob.Key}}})
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

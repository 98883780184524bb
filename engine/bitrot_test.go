package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// rotSample is a store as it lies on disk, and what it holds.
type rotSample struct {
	dir    string
	killed bool
	live   map[string]rotRef
	gone   []storage.StorageReference
	last   string // the reference of the last commit
	held   storage.StorageReference
	holds  []engine.Hold
}

type rotRef struct {
	ref   storage.StorageReference
	data  []byte
	entry engine.Entry
}

// rotConfig leaves out syncs: what is on disk is not in question.
func rotConfig(dir string) engine.FileStoreConfig {
	return engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true, Sync: engine.SyncNone}
}

// rotStore makes a store with every kind of file in it. A store that was killed
// has a log, staged names and debts besides.
func rotStore(t *testing.T, killed bool) *rotSample {
	s := &rotSample{dir: t.TempDir(), killed: killed, live: map[string]rotRef{}}
	config := rotConfig(s.dir)
	n := 0
	fill := func(f *engine.FileStore, refs int) {
		for range refs {
			n++
			data := bytesOf(900+n, byte(n/3)) // every third is one of three of its bytes
			if n%3 != 0 {
				data = bytesOf(900+n/3*3, byte(n/3))
			}
			m := storage.MediaMetadata{
				SessionID: fmt.Sprint("session ", n%3), ConversationID: fmt.Sprint("conversation ", n%2), RunID: fmt.Sprint("run ", n%4),
				UserID: "somebody", Labels: map[string]string{"picture": fmt.Sprintf("%060d", n)},
			}
			if n%5 == 0 {
				m.Policy = fmt.Sprintf("%d-01-01T00:00:00Z", 2900+n)
			}
			ref := mustStore(t, f, data, m)
			if n%8 == 5 {
				require.NoError(t, f.Delete(context.Background(), ref))
				s.gone = append(s.gone, *ref)
				continue
			}
			s.live[ref.ID] = rotRef{ref: *ref, data: data}
			s.last = ref.ID
		}
	}
	setup(t, config, func(f *engine.FileStore) {
		fill(f, 80)
		s.hold(t, f)
	})
	if killed {
		mustAbandon(t, config, func(f *engine.FileStore) {
			fill(f, 20)
			require.NoError(t, f.WriteSidecars(context.Background()))
			fill(f, 3)
		})
	}
	s.shrink(t)
	look := filepath.Join(t.TempDir(), "look")
	require.NoError(t, copyTree(s.dir, look))
	setup(t, rotConfig(look), func(f *engine.FileStore) {
		for id, r := range s.live {
			r.entry = mustStat(t, f, &r.ref)
			s.live[id] = r
		}
	})
	return s
}

// hold puts holds on one reference, some of which have ended. The last record of
// their journal is one that counts.
func (s *rotSample) hold(t *testing.T, f *engine.FileStore) {
	s.held = s.live[s.last].ref
	target := engine.HoldTarget{Kind: engine.HoldReference, ID: s.held.ID}
	for n := range 3 {
		mustHold(t, f, engine.Hold{Name: fmt.Sprint("early ", n), Target: target})
		mustHold(t, f, onSession(fmt.Sprint("released ", n), "another"))
	}
	mustRelease(t, f, "released 1", onSession("", "another").Target)
	mustHold(t, f, engine.Hold{Name: "last", Target: target})
	s.holds = mustListHolds(t, f)
}

// shrink leaves out what bbolt has not used of its file, and most of the reserve:
// hundreds of copies are made.
func (s *rotSample) shrink(t *testing.T) {
	index := filepath.Join(s.dir, ".mediabolt", "index.db")
	data, err := os.ReadFile(index)
	require.NoError(t, err)
	const pageSize = 4096
	used := (len(bytes.TrimRight(data, "\x00")) + pageSize - 1) / pageSize * pageSize
	require.NoError(t, os.Truncate(index, int64(used)))
	require.NoError(t, os.Truncate(filepath.Join(s.dir, ".mediabolt", "reserve"), pageSize))
}

// rot is damage to one file.
type rot struct {
	file string // relative to the store
	what string
	do   func([]byte) []byte
	mute bool // nothing is lost by it
}

func (r rot) String() string { return filepath.ToSlash(r.file) + ", " + r.what }

// rots is damage of every kind to every kind of file. For each kind of place it
// takes a few, so that another seed takes others.
func (s *rotSample) rots(t *testing.T, random *rand.Rand) []rot {
	var list []rot
	blobs, sidecars := 0, 0
	const each = 3 // of the files that are many
	files := treeFiles(t, s.dir)
	random.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	require.NoError(t, filepath.WalkDir(filepath.Join(s.dir, ".mediabolt"), func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(s.dir, name) // is below it
			files = append(files, rel)
		}
		return err
	}))
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(s.dir, file))
		require.NoError(t, err)
		flip := func(what string, at int) {
			bit := byte(1) << random.IntN(8)
			list = append(list, rot{
				file: file, what: fmt.Sprintf("bit %#x of byte %d of %d, %s", bit, at, len(data), what),
				do: func(d []byte) []byte {
					d[at] ^= bit
					return d
				},
				mute: strings.HasSuffix(file, ".meta") && s.onlyGone(data, at, at),
			})
		}
		cut := func(what string, size int) {
			list = append(list, rot{
				file: file, what: fmt.Sprintf("cut to %d of %d bytes, %s", size, len(data), what),
				do:   func(d []byte) []byte { return d[:size] },
				mute: strings.HasSuffix(file, ".meta") && s.onlyGone(data, size, len(data)-1),
			})
		}
		within := func(what string, from, to int) { flip(what, from+random.IntN(to-from)) }
		switch name := filepath.Base(file); {
		case name == "index.db":
			rotIndex(data, within)
			cut("in the meta pages", 5000)
			cut("in the middle", len(data)/2)
		case name == "index.sums":
			within("header", 0, 512)
			for range 4 {
				within("sums", 512, len(data))
			}
			cut("all", 0)
			cut("header alone", 512)
			cut("inside a sector", 700)
		case strings.HasPrefix(name, "log."):
			s.rotLog(data, within, cut)
		case name == "holds":
			within("head", 0, 60)
			within("padding of the head", 100, 512)
			start := 512
			for line := range bytes.Lines(data[512:]) {
				within("line", start, start+len(line))
				flip("newline", start+len(line)-1)
				cut("before a line", start)
				cut("in a line", start+random.IntN(len(line)))
				start += len(line)
			}
			cut("all", 0)
			cut("in the head", random.IntN(512))
		case name == "reserve":
			within("reserve", 0, len(data))
			cut("reserve", 0)
		case strings.Contains(file, "staging"):
			within("staged", 0, len(data))
			cut("staged", len(data)/2)
		case strings.HasSuffix(name, ".meta"):
			if sidecars++; sidecars <= each {
				within("sidecar", 0, len(data)/2)
				within("sidecar", len(data)/2, len(data))
				cut("sidecar", 0)
				cut("sidecar", random.IntN(len(data)-1)) // the last newline is nothing to miss
			}
		default:
			if blobs++; blobs <= each {
				flip("first of a blob", 0)
				within("blob", 0, len(data))
				flip("last of a blob", len(data)-1)
				cut("blob", 0)
				cut("blob", len(data)-1)
				list = append(list, rot{file: file, what: "blob with a byte more", do: func(d []byte) []byte { return append(d, 0) }})
			}
		}
	}
	return list
}

// onlyGone says whether the lines of a sidecar from one byte to another, not the
// first, add references that have ended since, and end no others: nothing of them
// is missed.
func (s *rotSample) onlyGone(sidecar []byte, from, to int) bool {
	start := bytes.LastIndexByte(sidecar[:from], '\n') + 1
	lines := sidecar[start : to+bytes.IndexByte(sidecar[to:], '\n')]
	for line := range bytes.SplitSeq(lines, []byte("\n")) {
		if !slices.ContainsFunc(s.gone, func(ref storage.StorageReference) bool {
			return bytes.Contains(line, []byte(ref.ID)) && bytes.Contains(lines, []byte(`"ref":{"id":"`+ref.ID+`"`))
		}) {
			return false
		}
	}
	return start > 0
}

// rotIndex is damage to the meta pages and to two pages of each kind: their
// headers, elements, and what these point to.
func rotIndex(data []byte, flip func(what string, from, to int)) {
	const pageSize = 4096
	for at := range 2 {
		flip("meta page", at*pageSize, at*pageSize+16)
		flip("meta page", at*pageSize+16, at*pageSize+80)
	}
	kinds := map[uint16]int{}
	for at := 2 * pageSize; at+pageSize <= len(data); at += pageSize {
		page := data[at : at+pageSize]
		flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
		name := map[uint16]string{1: "branch page", 2: "leaf page", 0x10: "free list"}[flags]
		if name == "" || count == 0 || kinds[flags] >= 8 {
			continue
		}
		kinds[flags]++
		flip(name+"'s number", at, at+8)
		flip(name+"'s flags and count", at+8, at+12)
		flip(name+"'s overflow", at+12, at+16)
		flip(name+"'s elements", at+16, at+16+8*count)
		flip(name+"'s end", at+pageSize/2, at+pageSize)
	}
}

// rotLog is damage to the records of a segment of the log, and behind them.
func (s *rotSample) rotLog(data []byte, flip func(what string, from, to int), cut func(what string, size int)) {
	const block, header = 4096, 40
	at := 0
	for records := 0; at+header <= len(data) && bytes.HasPrefix(data[at:], []byte("mblog")); records++ {
		body := int(binary.LittleEndian.Uint32(data[at+32:]))
		end := at + (header+body+block-1)/block*block
		if records%5 == 0 {
			flip("header of a record", at, at+header)
			flip("body of a record", at+header, at+header+body)
			if at+header+body < end {
				flip("padding of a record", at+header+body, end)
			}
			cut("in a record", at+header+body/2)
		}
		at = end
	}
	if at < len(data) {
		flip("behind the records", at, len(data))
		cut("behind the records", at)
	}
}

// Whatever is damaged, in whatever file: nothing is returned as good that is not
// what was stored, nothing panics or hangs, and the damage is found by the opening
// or by Verify, unless it has been repaired or does not matter.
func TestBitRot(t *testing.T) {
	t.Parallel()
	seed := freshSeed(t)
	for name, killed := range map[string]bool{"closed": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			s := rotStore(t, killed)
			rots := s.rots(t, rand.New(rand.NewPCG(seed, 0)))
			counts := map[string]int{}
			var mu sync.Mutex
			var next atomic.Int64
			var all sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				all.Go(func() {
					for i := next.Add(1) - 1; int(i) < len(rots); i = next.Add(1) - 1 {
						outcome, err := s.suffer(rots[i])
						mu.Lock()
						counts[outcome]++
						if err != nil {
							t.Errorf("%s: %v", rots[i], err)
						}
						mu.Unlock()
					}
				})
			}
			all.Wait()
			t.Logf("%d damages: %v", len(rots), counts)
		})
	}
}

// suffer does the damage to a copy of the store, uses that, and answers what came
// of it.
func (s *rotSample) suffer(r rot) (outcome string, err error) {
	const long = time.Minute
	defer time.AfterFunc(long, func() { panic(fmt.Sprint("hangs: ", r)) }).Stop()
	scratch, err := os.MkdirTemp(memoryDir(), "mediabolt-rot-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	dir := filepath.Join(scratch, "store")
	if err := copyTree(s.dir, dir); err != nil {
		return "", err
	}
	file := filepath.Join(dir, r.file)
	good, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(file, r.do(slices.Clone(good)), 0o600); err != nil {
		return "", err
	}
	f, err := engine.Open(context.Background(), rotConfig(dir))
	if err != nil {
		return "refused", s.refused(r, dir, good, err)
	}
	lastMayBeLost := strings.HasPrefix(filepath.Base(r.file), "log.")
	outcome, err = s.judge(f, r, lastMayBeLost)
	if e := f.Close(); e != nil && !errors.Is(e, storage.ErrCorrupted) {
		err = errors.Join(err, fmt.Errorf("close: %w", e))
	}
	return outcome, err
}

// memoryDir is a directory whose files are in memory, where there is one: no disk
// is in question here, and hundreds of copies of a store take it minutes.
func memoryDir() string {
	const shared = "/dev/shm"
	if info, err := os.Stat(shared); err == nil && info.IsDir() {
		return shared
	}
	return os.TempDir()
}

// refused judges an opening that fails: it says why, and changes nothing, so that
// the store opens when its file is back.
func (s *rotSample) refused(r rot, dir string, good []byte, why error) error {
	if !errors.Is(why, storage.ErrCorrupted) && !errors.Is(why, storage.ErrVersion) {
		return fmt.Errorf("open: %w", why)
	}
	if name := filepath.Base(r.file); !strings.Contains(why.Error(), name) && name != "index.sums" {
		return fmt.Errorf("open does not name the file: %w", why)
	}
	if err := os.WriteFile(filepath.Join(dir, r.file), good, 0o600); err != nil {
		return err
	}
	f, err := engine.Open(context.Background(), rotConfig(dir))
	if err != nil {
		return fmt.Errorf("open with the file as it was: %w", err)
	}
	outcome, err := s.judge(f, rot{}, false)
	if err == nil && outcome != "good" {
		err = fmt.Errorf("with the file as it was: %s", outcome)
	}
	return errors.Join(err, f.Close())
}

// judge asks everything of an open store.
func (s *rotSample) judge(f *engine.FileStore, r rot, lastMayBeLost bool) (outcome string, err error) {
	ctx := context.Background()
	hurt, lost := 0, 0
	for id, want := range s.live {
		got, err := f.Retrieve(ctx, &want.ref)
		switch {
		case err == nil:
			data, err := base64.StdEncoding.DecodeString(got.Data)
			if err != nil || !bytes.Equal(data, want.data) {
				return "", fmt.Errorf("%s is returned with other bytes", id)
			}
			if e, err := f.Stat(ctx, &want.ref); err == nil && !sameEntry(e, want.entry) {
				return "", fmt.Errorf("%s: %+v in place of %+v", id, e, want.entry)
			}
		case errors.Is(err, storage.ErrCorrupted):
			hurt++
		case errors.Is(err, storage.ErrNotFound) && id == s.last && lastMayBeLost:
			lost++ // its record looks as if the process had died while writing it
		default:
			return "", fmt.Errorf("%s: %w", id, err)
		}
	}
	for i := range s.gone {
		if _, err := f.Retrieve(ctx, &s.gone[i]); !errors.Is(err, storage.ErrNotFound) && !errors.Is(err, storage.ErrCorrupted) {
			return "", fmt.Errorf("%s was deleted: %w", s.gone[i].ID, err)
		}
	}
	named, err := s.verify(f, r)
	if err == nil {
		err = s.list(f, lost)
	}
	if err == nil {
		err = s.expire(f, lost)
	}
	if err == nil {
		err = s.change(f)
	}
	if err == nil {
		err = s.stillHeld(f, r, named)
	}
	switch {
	case err != nil:
		return "", err
	case hurt > 0 && !named:
		return "", fmt.Errorf("%d references cannot be read, and Verify finds nothing", hurt)
	case named:
		return "named", nil
	case lost > 0:
		return "last record lost", nil
	}
	return "good", nil
}

// stillHeld requires that what is held cannot be deleted, and that all holds are
// listed, or else that the damage is named.
func (s *rotSample) stillHeld(f *engine.FileStore, r rot, named bool) error {
	if filepath.Base(r.file) == "holds" && !named {
		return errors.New("verify finds nothing")
	}
	err := f.Delete(context.Background(), &s.held)
	if !errors.Is(err, storage.ErrHeld) && !errors.Is(err, storage.ErrCorrupted) {
		return fmt.Errorf("a held reference can be deleted: %w", err)
	}
	var list []engine.Hold
	for h, err := range f.Holds(context.Background()) {
		if errors.Is(err, storage.ErrCorrupted) {
			return nil
		} else if err != nil {
			return fmt.Errorf("holds: %w", err)
		}
		list = append(list, h)
	}
	if !slices.Equal(list, s.holds) {
		return fmt.Errorf("the holds are %+v in place of %+v", list, s.holds)
	}
	return nil
}

func sameEntry(a, b engine.Entry) bool {
	a.AccessedAt, b.AccessedAt = time.Time{}, time.Time{}
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

// verify says whether Verify finds anything, which must be what was damaged.
func (s *rotSample) verify(f *engine.FileStore, r rot) (named bool, err error) {
	inTree := r.file != "" && !strings.HasPrefix(r.file, ".mediabolt")
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupted) {
				return false, fmt.Errorf("verify: %w", err)
			}
			return true, nil
		}
		if finding.Severity != storage.SeverityDamage {
			continue
		}
		if inTree && filepath.FromSlash(finding.Path) != r.file {
			return false, fmt.Errorf("verify finds %+v", finding)
		}
		named = true
	}
	// What was under way when a store was killed, its recovery mends.
	if inTree && !named && !r.mute && !s.killed {
		return false, errors.New("verify finds nothing")
	}
	return named, nil
}

// list requires that a list is complete and right, or refused.
func (s *rotSample) list(f *engine.FileStore, lost int) error {
	seen := 0
	for e, err := range f.List(context.Background(), engine.Query{UserID: "somebody"}) {
		if err != nil {
			if errors.Is(err, storage.ErrCorrupted) {
				return nil
			}
			return fmt.Errorf("list: %w", err)
		}
		if want, live := s.live[e.Reference.ID]; !live || !sameEntry(e, want.entry) {
			return fmt.Errorf("list has %+v in place of %+v", e, want.entry)
		}
		seen++
	}
	if seen != len(s.live)-lost {
		return fmt.Errorf("list has %d of %d references", seen, len(s.live))
	}
	return nil
}

// expire requires that the list of what expires is complete and right, or refused, and
// that nothing is ended before its time.
func (s *rotSample) expire(f *engine.FileStore, lost int) error {
	ctx := context.Background()
	if done, err := f.Expire(ctx, engine.ExpireOptions{}); err != nil && !errors.Is(err, storage.ErrCorrupted) || done.References > 0 {
		return fmt.Errorf("expire: %+v: %w", done, err)
	}
	want, seen := 0, 0
	for _, r := range s.live {
		if !r.entry.ExpiresAt.IsZero() {
			want++
		}
	}
	for e, err := range f.List(ctx, engine.Query{Order: engine.Soonest}) {
		if errors.Is(err, storage.ErrCorrupted) {
			return nil
		} else if err != nil {
			return fmt.Errorf("list by expiry: %w", err)
		}
		if want, live := s.live[e.Reference.ID]; !live || !sameEntry(e, want.entry) {
			return fmt.Errorf("list by expiry has %+v in place of %+v", e, want.entry)
		}
		seen++
	}
	if seen < want-lost || seen > want {
		return fmt.Errorf("list by expiry has %d of %d references", seen, want)
	}
	return nil
}

// change requires that what is stored now can be read, or is refused.
func (s *rotSample) change(f *engine.FileStore) error {
	ctx := context.Background()
	data := []byte("something new")
	ref, err := f.Store(ctx, content(data), someIDs)
	if errors.Is(err, storage.ErrCorrupted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	got, err := f.Retrieve(ctx, ref)
	if err != nil || !strings.HasSuffix(got.Data, base64.StdEncoding.EncodeToString(data)) {
		return fmt.Errorf("what was stored since: %w", err)
	}
	if err := f.Delete(ctx, ref); err != nil && !errors.Is(err, storage.ErrCorrupted) {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

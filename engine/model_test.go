package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// model is what a store must be equivalent to, as plain maps. It has no locks.
type model struct {
	refs    map[string]*modelRef  // live ones, by ID
	blobs   map[string]*modelBlob // by modelRef.blob
	deleted []string              // IDs of references that were deleted
	holds   map[engine.Hold]bool  // that are in force, without their times
}

type modelRef struct {
	blob string // contentKey with dedup, the ID without
	info storage.MediaInfo
	meta storage.MediaMetadata

	expires  time.Time // zero: never
	revision uint32
}

type modelBlob struct {
	data []byte
	path string
	org  storage.OrganizationMode
	refs int
}

func newModel() *model {
	return &model{refs: map[string]*modelRef{}, blobs: map[string]*modelBlob{}, holds: map[engine.Hold]bool{}}
}

// contentKey names a shared blob; no ID is like it.
func contentKey(data []byte) string { return fmt.Sprintf("sha256 %x", sha256.Sum256(data)) }

// store is what a Store that returned ref does to the model. It is an error if
// ref is not what the model expects.
func (m *model) store(ref *storage.StorageReference, dedup bool, org storage.OrganizationMode, data []byte,
	info storage.MediaInfo, meta storage.MediaMetadata,
) error {
	if m.refs[ref.ID] != nil || slices.Contains(m.deleted, ref.ID) {
		return fmt.Errorf("reference %s comes twice", ref.ID)
	}
	if meta.CreatedAt.IsZero() {
		meta.CreatedAt = ref.CreatedAt
	}
	key := ref.ID
	if dedup {
		key = contentKey(data)
	}
	blob := m.blobs[key]
	if blob == nil {
		blob = &modelBlob{data: data, org: org, path: path.Join(modelDir(org, &meta), ref.ID+modelExtensions[info.MimeType])}
		m.blobs[key] = blob
	}
	blob.refs++
	m.refs[ref.ID] = &modelRef{blob: key, info: info, meta: meta}
	if got := ref.Metadata["path"]; got != blob.path {
		return fmt.Errorf("reference %s is in %s, the model has it in %s", ref.ID, got, blob.path)
	}
	return nil
}

// delete is what a Delete does to the model.
func (m *model) delete(id string) {
	ref := m.refs[id]
	if ref == nil {
		return
	}
	delete(m.refs, id)
	m.deleted = append(m.deleted, id)
	if m.blobs[ref.blob].refs--; m.blobs[ref.blob].refs == 0 {
		delete(m.blobs, ref.blob)
	}
}

// held says whether a hold is on a live reference.
func (m *model) held(id string) bool {
	meta := &m.refs[id].meta
	for h := range m.holds {
		switch h.Target {
		case engine.HoldTarget{Kind: engine.HoldReference, ID: id}, engine.HoldTarget{Kind: engine.HoldSession, ID: meta.SessionID},
			engine.HoldTarget{Kind: engine.HoldConversation, ID: meta.ConversationID}, engine.HoldTarget{Kind: engine.HoldRun, ID: meta.RunID},
			engine.HoldTarget{Kind: engine.HoldUser, ID: meta.UserID}:
			return true
		}
	}
	return false
}

// checkHolds compares the holds with the model.
func (m *model) checkHolds(f *engine.FileStore) error {
	got := map[engine.Hold]bool{}
	for h, err := range f.Holds(context.Background()) {
		if err != nil {
			return err
		}
		h.At = time.Time{}
		got[h] = true
	}
	if !maps.Equal(got, m.holds) {
		return fmt.Errorf("holds %v, want %v", got, m.holds)
	}
	return nil
}

// modelDir is the directory of a blob whose IDs are ordinary.
func modelDir(org storage.OrganizationMode, m *storage.MediaMetadata) string {
	or := func(id, missing string) string {
		if id == "" {
			return missing
		}
		return id
	}
	run, session, conversation := or(m.RunID, "no-run"), or(m.SessionID, "no-session"), or(m.ConversationID, "no-conversation")
	switch org {
	case storage.OrganizationByConversation:
		return conversation
	case storage.OrganizationBySession:
		return path.Join(session, conversation)
	case storage.OrganizationByRun:
		return path.Join(run, session, conversation)
	}
	return "."
}

// modelExtensions are of the MIME types that the model uses.
var modelExtensions = map[string]string{
	"image/png": ".png", "audio/mpeg": ".mp3", "application/x-of-our-own": ".bin",
}

// checkRef compares one reference with the model, by every way to look at it.
func (m *model) checkRef(f *engine.FileStore, id string) error {
	ctx := context.Background()
	want := m.refs[id]
	blob := m.blobs[want.blob]
	ref := &storage.StorageReference{ID: id}
	// The standard library's base64 of large ones would be most of the time.
	if len(blob.data) < 100_000 {
		got, err := f.Retrieve(ctx, ref)
		if err != nil {
			return err
		}
		content := storage.MediaContent{
			Type: want.info.Type, MimeType: want.info.MimeType, Data: base64.StdEncoding.EncodeToString(blob.data),
		}
		if *got != content {
			return fmt.Errorf("reference %s retrieves %+.200v, want %+.200v", id, *got, content)
		}
	}
	if err := wantBytes(f, ref, blob.data); err != nil {
		return err
	}
	e, err := f.Stat(ctx, ref)
	if err != nil {
		return err
	}
	return m.checkEntry(&e)
}

func (m *model) checkEntry(e *engine.Entry) error {
	id := e.Reference.ID
	want := m.refs[id]
	if want == nil {
		return fmt.Errorf("reference %s, which the model does not have", id)
	}
	blob := m.blobs[want.blob]
	switch {
	case e.Path != blob.path, e.Size != int64(len(blob.data)), e.Refs != int64(blob.refs):
		return fmt.Errorf("reference %s: path %s, %d bytes, %d references; want %s, %d, %d",
			id, e.Path, e.Size, e.Refs, blob.path, len(blob.data), blob.refs)
	case e.Reference.Metadata["org"] != string(blob.org):
		return fmt.Errorf("reference %s: organization %s, want %s", id, e.Reference.Metadata["org"], blob.org)
	case e.Type != want.info.Type || e.MimeType != want.info.MimeType:
		return fmt.Errorf("reference %s: %s, %s; want %+v", id, e.Type, e.MimeType, want.info)
	case !e.ExpiresAt.Equal(want.expires):
		return fmt.Errorf("reference %s: expires %v, want %v", id, e.ExpiresAt, want.expires)
	case fmt.Sprint(e.Metadata) != fmt.Sprint(want.meta):
		return fmt.Errorf("reference %s: metadata %+v, want %+v", id, e.Metadata, want.meta)
	}
	return nil
}

// checkGone is an error unless a deleted reference is gone, and only gone.
func checkGone(f *engine.FileStore, id string) error {
	ctx := context.Background()
	ref := &storage.StorageReference{ID: id}
	for _, look := range [...]func() error{
		func() error { _, err := f.Retrieve(ctx, ref); return err },
		func() error { _, err := f.Open(ctx, ref); return err },
		func() error { _, err := f.Stat(ctx, ref); return err },
	} {
		if err := look(); !errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupted) {
			return fmt.Errorf("deleted reference %s: %w", id, err)
		}
	}
	return nil
}

// checkAll compares everything with the model, and the store with itself.
func (m *model) checkAll(f *engine.FileStore, baseDir string) error {
	for id := range m.refs {
		if err := m.checkRef(f, id); err != nil {
			return err
		}
	}
	for _, id := range m.deleted {
		if err := checkGone(f, id); err != nil {
			return err
		}
	}
	if err := errors.Join(m.checkList(f, engine.Query{}, 0), m.checkHolds(f)); err != nil {
		return err
	}
	var logical, physical int64
	files := map[string]bool{}
	for _, blob := range m.blobs {
		physical += int64(len(blob.data))
		logical += int64(len(blob.data) * blob.refs)
		files[blob.path], files[blob.path+".meta"] = true, true
	}
	stats, err := f.Stats(context.Background())
	if err != nil {
		return err
	}
	stats.Latencies = engine.Latencies{}
	want := engine.Stats{
		References: int64(len(m.refs)), Blobs: int64(len(m.blobs)), LogicalBytes: logical, PhysicalBytes: physical,
		SavedBytes: logical - physical, IndexBytes: stats.IndexBytes,
	}
	if stats != want {
		return fmt.Errorf("stats %+v, want %+v", stats, want)
	}
	for finding, err := range f.Verify(context.Background(), engine.VerifyOptions{}) {
		if err != nil {
			return err
		}
		return fmt.Errorf("verify: %+v", finding)
	}
	return checkFiles(baseDir, files)
}

// checkFiles is an error unless the tree holds these files, no other, and no
// empty directory.
func checkFiles(baseDir string, want map[string]bool) error {
	left := maps.Clone(want)
	var walk func(dir string) error
	walk = func(dir string) error {
		entries, err := os.ReadDir(path.Join(baseDir, dir))
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("directory %s is empty", dir)
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			switch {
			case name == ".mediabolt":
			case e.IsDir():
				if err := walk(name); err != nil {
					return err
				}
			case !left[name]:
				return fmt.Errorf("file %s is there, which the model does not have", name)
			default:
				delete(left, name)
			}
		}
		return nil
	}
	if err := walk("."); err != nil {
		return err
	}
	for name := range left {
		return fmt.Errorf("file %s is not there", name)
	}
	return nil
}

// machine runs random operations, one after another, on a store and its model.
type machine struct {
	config engine.FileStoreConfig
	clock  *testClock
	store  *engine.FileStore
	model  *model
}

func (m *machine) reopen(t *rapid.T) {
	m.config.EnableDeduplication = rapid.Bool().Draw(t, "dedup")
	m.config.Organization = rapid.SampledFrom(storage.OrganizationModes()).Draw(t, "organization")
	m.config.DefaultPolicy = drawPolicy.Draw(t, "default policy")
	store, err := engine.Open(context.Background(), m.config)
	require.NoError(t, err)
	m.store = store
}

// modelContents are few, so that many are stored again; one is spooled.
var modelContents = sync.OnceValue(func() (contents [][]byte) {
	for i, size := range []int{0, 1, 1, 100, 100, 3000, 3001, 5000, 20_000, 20_000, 1<<20 + 1} {
		contents = append(contents, bytesOf(size, byte(i)))
	}
	return contents
})

var (
	drawData = rapid.Custom(func(t *rapid.T) []byte {
		return modelContents()[rapid.IntRange(0, len(modelContents())-1).Draw(t, "content")]
	})
	drawID   = rapid.SampledFrom([]string{"", "a", "b", "session 1"})
	drawInfo = rapid.Custom(func(t *rapid.T) storage.MediaInfo {
		return storage.MediaInfo{
			Type:     rapid.SampledFrom([]string{"image", "audio", "of our own"}).Draw(t, "type"),
			MimeType: rapid.SampledFrom(slices.Sorted(maps.Keys(modelExtensions))).Draw(t, "MIME type"),
		}
	})
	drawMetadata = rapid.Custom(func(t *rapid.T) storage.MediaMetadata {
		m := storage.MediaMetadata{
			ConversationID: drawID.Draw(t, "conversation"), SessionID: drawID.Draw(t, "session"),
			RunID: drawID.Draw(t, "run"), UserID: drawID.Draw(t, "user"),
			MessageIndex: rapid.Int().Draw(t, "message"), ContentIndex: rapid.IntRange(0, 3).Draw(t, "part"),
			Policy: drawPolicy.Draw(t, "policy"),
		}
		if rapid.Bool().Draw(t, "dated") {
			m.CreatedAt = time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "time")).UTC()
		}
		if rapid.Bool().Draw(t, "labelled") {
			m.Labels = map[string]string{"model": rapid.StringN(0, 20, 80).Draw(t, "label")}
		}
		return m
	})
)

func (m *machine) put(t *rapid.T, put func([]byte, storage.MediaInfo, storage.MediaMetadata) (*storage.StorageReference, error)) {
	data, info, meta := drawData.Draw(t, "data"), drawInfo.Draw(t, "info"), drawMetadata.Draw(t, "metadata")
	ref, err := put(data, info, meta)
	require.NoError(t, err)
	require.NoError(t, m.model.store(ref, m.config.EnableDeduplication, m.config.Organization, data, info, meta))
	if meta.Policy == "" {
		meta.Policy = m.config.DefaultPolicy
	}
	m.model.refs[ref.ID].retain(meta.Policy, m.clock.now())
}

func (m *machine) Store(t *rapid.T) {
	m.put(t, func(data []byte, info storage.MediaInfo, meta storage.MediaMetadata) (*storage.StorageReference, error) {
		c := content(data)
		c.Type, c.MimeType = info.Type, info.MimeType
		return m.store.Store(context.Background(), c, meta)
	})
}

func (m *machine) StoreReader(t *rapid.T) {
	m.put(t, func(data []byte, info storage.MediaInfo, meta storage.MediaMetadata) (*storage.StorageReference, error) {
		return m.store.StoreReader(context.Background(), bytes.NewReader(data), info, meta)
	})
}

// drawRef is the ID of one of the live references; without one the step is
// left out.
func (m *machine) drawRef(t *rapid.T) string {
	if len(m.model.refs) == 0 {
		t.Skip("nothing is stored")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.model.refs))).Draw(t, "reference")
}

func (m *machine) Read(t *rapid.T) { require.NoError(t, m.model.checkRef(m.store, m.drawRef(t))) }

func (m *machine) Delete(t *rapid.T) {
	id := m.drawRef(t)
	err := m.store.Delete(context.Background(), &storage.StorageReference{ID: id})
	if m.model.held(id) {
		require.ErrorIs(t, err, storage.ErrHeld)
		return
	}
	require.NoError(t, err)
	m.model.delete(id)
	require.NoError(t, checkGone(m.store, id))
}

func (m *machine) DeleteAgain(t *rapid.T) {
	if len(m.model.deleted) == 0 {
		t.Skip("nothing was deleted")
	}
	id := rapid.SampledFrom(m.model.deleted).Draw(t, "deleted reference")
	require.NoError(t, m.store.Delete(context.Background(), &storage.StorageReference{ID: id}))
}

// drawHold is a hold on a live reference or on any session, conversation, run or user.
func (m *machine) drawHold(t *rapid.T) engine.Hold {
	h := engine.Hold{
		Name:   rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"),
		Target: engine.HoldTarget{Kind: engine.HoldReference, ID: m.drawRef(t)},
	}
	kinds := []engine.HoldKind{engine.HoldReference, engine.HoldSession, engine.HoldConversation, engine.HoldRun, engine.HoldUser}
	if h.Target.Kind = rapid.SampledFrom(kinds).Draw(t, "kind"); h.Target.Kind != engine.HoldReference {
		h.Target.ID = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "ID")
	}
	return h
}

func (m *machine) Hold(t *rapid.T) {
	h := m.drawHold(t)
	require.NoError(t, m.store.Hold(context.Background(), h))
	m.model.holds[h] = true
}

// Release releases one of the holds in force, and one that may not be there.
func (m *machine) Release(t *rapid.T) {
	h := m.drawHold(t)
	all := slices.Collect(maps.Keys(m.model.holds))
	if len(all) > 0 {
		slices.SortFunc(all, func(a, b engine.Hold) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		h = rapid.SampledFrom(append(all, h)).Draw(t, "hold")
	}
	released, err := m.store.Release(context.Background(), h.Name, h.Target)
	require.NoError(t, err)
	require.Equal(t, m.model.holds[h], len(released) == 1)
	delete(m.model.holds, h)
}

func (m *machine) List(t *rapid.T) {
	require.NoError(t, m.model.checkList(m.store, m.drawQuery(t), rapid.IntRange(0, 3).Draw(t, "page")))
}

func (m *machine) References(t *rapid.T) {
	require.NoError(t, m.model.checkReferences(m.store, drawData.Draw(t, "data")))
}

func (m *machine) Checkpoint(t *rapid.T) {
	require.NoError(t, m.store.Checkpoint(context.Background()))
}

func (m *machine) CloseAndReopen(t *rapid.T) {
	require.NoError(t, m.store.Close())
	require.NoError(t, m.model.checkSidecars(func(path string) map[string]*storage.RefRow { return sidecarOf(t, m.config.BaseDir, path) }))
	m.reopen(t)
}

func (m *machine) AbandonAndReopen(t *rapid.T) {
	require.NoError(t, m.store.Abandon())
	m.reopen(t)
}

func (m *machine) CompareAll(t *rapid.T) {
	require.NoError(t, m.model.checkAll(m.store, m.config.BaseDir))
}

// TestModel compares a store with plain maps through random operations. A
// failure prints the flags that repeat it.
func TestModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(dir, "store")
		require.NoError(rt, err)
		m := &machine{clock: newClock(), model: newModel()}
		m.config = engine.WithClock(engine.FileStoreConfig{BaseDir: base, Sync: engine.SyncNone}, m.clock.now)
		m.reopen(rt)
		defer func() { // also when a step failed: the next attempt follows in this process
			require.NoError(rt, errors.Join(m.store.Close(), os.RemoveAll(base)))
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"Store": m.Store, "StoreReader": m.StoreReader, "Read": m.Read, "Delete": m.Delete, "DeleteAgain": m.DeleteAgain,
			"List": m.List, "References": m.References, "Checkpoint": m.Checkpoint, "CloseAndReopen": m.CloseAndReopen, "AbandonAndReopen": m.AbandonAndReopen,
			"Hold": m.Hold, "Release": m.Release, "Retain": m.Retain, "Expire": m.Expire, "CompareAll": m.CompareAll,
		})
		m.CompareAll(rt)
		require.NoError(rt, m.store.Close())
		m.reopen(rt)
		m.CompareAll(rt)
	})
}

// sharedModel is a model that many goroutines use. What one reference is cannot
// change but by its deletion, and that is guarded per reference.
type sharedModel struct {
	config engine.FileStoreConfig
	store  *engine.FileStore

	mu      sync.Mutex // guards the rest
	refs    []*sharedRef
	deleted []string
}

type sharedRef struct {
	mu   sync.RWMutex // held for writing by who deletes, for reading by who reads
	id   string
	key  string // as modelRef.blob
	data []byte
	info storage.MediaInfo
	meta storage.MediaMetadata
	gone bool
}

// seedVariable repeats a run of TestModelOfManyGoroutines with the seed that it
// printed.
const seedVariable = "MEDIABOLT_SEED"

// TestModelOfManyGoroutines does random operations with overlapping content
// from many goroutines, and compares the store with the model between rounds.
func TestModelOfManyGoroutines(t *testing.T) {
	t.Parallel()
	const goroutines, rounds, steps = 32, 6, 20
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedVariable); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("%s=%d", seedVariable, seed)
	m := &sharedModel{config: engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}}
	between := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		m.config.EnableDeduplication = between.IntN(4) > 0
		m.config.Organization = storage.OrganizationModes()[between.IntN(4)]
		if round%4 == 3 {
			m.config.Sync = engine.SyncFull
		} else {
			m.config.Sync = engine.SyncNone
		}
		store, err := engine.Open(context.Background(), m.config)
		require.NoError(t, err)
		m.store = store
		atOnce(t, goroutines, func(i int) error {
			r := rand.New(rand.NewPCG(seed, uint64(1+round*goroutines+i)))
			for range steps {
				if err := m.step(r); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, m.compare())
		if between.IntN(2) == 0 {
			require.NoError(t, m.store.Close())
		} else {
			require.NoError(t, m.store.Abandon())
		}
	}
	f := mustOpen(t, m.config)
	m.store = f
	require.NoError(t, m.compare())
	atOnce(t, goroutines, func(i int) error {
		for n := i; n < len(m.refs); n += goroutines {
			if err := f.Delete(context.Background(), &storage.StorageReference{ID: m.refs[n].id}); err != nil {
				return err
			}
		}
		return nil
	})
	requireEmpty(t, f, m.config.BaseDir)
}

// step does one random operation.
func (m *sharedModel) step(r *rand.Rand) error {
	ctx := context.Background()
	switch n := r.IntN(100); {
	case n < 40:
		return m.put(r)
	case n < 60:
		ref := m.pick(r)
		if ref == nil {
			return nil
		}
		ref.mu.RLock()
		defer ref.mu.RUnlock()
		if ref.gone {
			return checkGone(m.store, ref.id)
		}
		return wantBytes(m.store, &storage.StorageReference{ID: ref.id}, ref.data)
	case n < 90:
		return m.delete(r)
	case n < 94:
		// Others go on, so what is listed may be any of what was.
		return m.list(r)
	case n < 97:
		return m.store.Checkpoint(ctx)
	}
	stats, err := m.store.Stats(ctx)
	if err == nil && (stats.Blobs > stats.References || stats.PhysicalBytes > stats.LogicalBytes) {
		return fmt.Errorf("stats %+v", stats)
	}
	return err
}

func (m *sharedModel) put(r *rand.Rand) error {
	id := func() string { return []string{"", "a", "b"}[r.IntN(3)] }
	mimeTypes := slices.Sorted(maps.Keys(modelExtensions))
	ref := &sharedRef{
		data: modelContents()[r.IntN(len(modelContents()))],
		info: storage.MediaInfo{Type: "image", MimeType: mimeTypes[r.IntN(len(mimeTypes))]},
		meta: storage.MediaMetadata{
			SessionID: id(), ConversationID: id(), RunID: id(), MessageIndex: r.IntN(1000),
			Labels: map[string]string{"n": strconv.Itoa(r.IntN(2))},
		},
	}
	var stored *storage.StorageReference
	var err error
	if len(ref.data) < 100_000 && r.IntN(2) == 0 {
		c := content(ref.data)
		c.Type, c.MimeType = ref.info.Type, ref.info.MimeType
		stored, err = m.store.Store(context.Background(), c, ref.meta)
	} else {
		stored, err = m.store.StoreReader(context.Background(), bytes.NewReader(ref.data), ref.info, ref.meta)
	}
	if err != nil {
		return err
	}
	ref.id, ref.key, ref.meta.CreatedAt = stored.ID, stored.ID, stored.CreatedAt
	if m.config.EnableDeduplication {
		ref.key = contentKey(ref.data)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs = append(m.refs, ref)
	return nil
}

func (m *sharedModel) pick(r *rand.Rand) *sharedRef {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refs) == 0 {
		return nil
	}
	return m.refs[r.IntN(len(m.refs))]
}

func (m *sharedModel) delete(r *rand.Rand) error {
	ref := m.pick(r)
	if ref == nil {
		return nil
	}
	ref.mu.Lock()
	defer ref.mu.Unlock()
	if err := m.store.Delete(context.Background(), &storage.StorageReference{ID: ref.id}); err != nil || ref.gone {
		return err
	}
	ref.gone = true
	return checkGone(m.store, ref.id)
}

// compare compares everything with the model while nobody changes anything. The
// path of a shared blob is that of whoever came first, so it is taken from the
// store and must be the same for all.
func (m *sharedModel) compare() error {
	m.refs = slices.DeleteFunc(m.refs, func(ref *sharedRef) bool {
		if ref.gone {
			m.deleted = append(m.deleted, ref.id)
		}
		return ref.gone
	})
	plain := newModel()
	plain.deleted = m.deleted
	for _, ref := range m.refs {
		e, err := m.store.Stat(context.Background(), &storage.StorageReference{ID: ref.id})
		if err != nil {
			return err
		}
		blob := plain.blobs[ref.key]
		if blob == nil {
			blob = &modelBlob{data: ref.data, path: e.Path, org: storage.OrganizationMode(e.Reference.Metadata["org"])}
			plain.blobs[ref.key] = blob
		}
		if !strings.HasPrefix(path.Base(e.Path), ref.id[:6]) {
			return fmt.Errorf("reference %s is in %s", ref.id, e.Path)
		}
		blob.refs++
		plain.refs[ref.id] = &modelRef{blob: ref.key, info: ref.info, meta: ref.meta}
	}
	return plain.checkAll(m.store, m.config.BaseDir)
}

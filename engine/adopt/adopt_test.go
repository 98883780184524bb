package adopt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/engine/adopt"
	"github.com/mediabolt/mediabolt/storage"
)

func TestPromptKit(t *testing.T) {
	ctx := context.Background()
	k := newKit(t, true)
	old := k.dedupPut("s1", ".png", png("a"), kitMeta("s1"))
	before := snapshot(t, k.dir)
	dir := t.TempDir()
	f := mustOpen(t, dir)
	items, r := adoptAll(t, f, adopt.Options{Dir: k.dir})
	require.Equal(t, adopt.Report{Taken: 1, Left: 1, Bytes: int64(len(png("a")))}, r)
	require.Equal(t, before, snapshot(t, k.dir), "the source is untouched")
	require.Equal(t, adopt.OddBookkept, items[".dedup_index.json"].Odd)

	ref, err := f.Resolve(ctx, old)
	require.NoError(t, err)
	e := mustStat(t, f, ref.ID)
	require.Equal(t, storage.MediaMetadata{
		RunID: "r1", ConversationID: "c1", SessionID: "s1", MessageIndex: 3, ContentIndex: 1,
		CreatedAt: time.Date(2026, 3, 1, 12, 30, 0, 500_000_000, time.UTC),
		Policy:    "retain-30days",
		Labels:    map[string]string{"provider_id": "openai", engine.AdoptedFrom: old},
	}, e.Metadata)
	require.Equal(t, "image/png", e.MimeType)
	require.Equal(t, png("a"), mustRead(t, f, ref.ID))

	// Again, also after a restart and without the source.
	items, r = adoptAll(t, f, adopt.Options{Dir: k.dir})
	require.Equal(t, adopt.Report{Known: 1, Left: 1}, r)
	require.Equal(t, ref.ID, items["sessions/s1/"+filepath.Base(old)].Reference)
	require.NoError(t, f.Close())
	require.NoError(t, os.RemoveAll(k.dir))
	f = mustOpen(t, dir)
	again, err := f.Resolve(ctx, old)
	require.NoError(t, err)
	require.Equal(t, ref.ID, again.ID)
	require.Len(t, entries(t, f), 1)
}

// A store that was configured with a relative directory, or moved since, has
// references that name no file any more.
func TestPromptKitReferencesOfAnotherPlace(t *testing.T) {
	for _, base := range []string{"media/files", "/var/lib/media"} {
		k := newKit(t, true)
		k.base = base
		listed := k.dedupPut("s1", ".png", png("a"), kitMeta("s1"))
		unlisted := k.dedupPut("s1", ".png", png("b"), kitMeta("s1"))
		delete(k.index, hexOf(png("b")))
		writeJSON(t, k.dir, ".dedup_index.json", k.index)
		f := mustOpen(t, t.TempDir())
		items, _ := adoptAll(t, f, adopt.Options{Dir: k.dir, Base: base})
		require.Equal(t, adopt.OddUnlisted, items["sessions/s1/"+filepath.Base(unlisted)].Odd)
		for _, old := range []string{listed, unlisted} {
			ref, err := f.Resolve(context.Background(), old)
			require.NoError(t, err, old)
			now, err := f.Resolve(context.Background(), filepath.Join(k.dir, "sessions/s1", filepath.Base(old)))
			require.NoError(t, err)
			require.Equal(t, ref.ID, now.ID)
		}
	}
}

// Two sources whose references are spelled alike, relative to other places, are
// adopted both.
func TestRelativeReferencesOfTwoSources(t *testing.T) {
	f := mustOpen(t, t.TempDir())
	for _, seed := range []string{"a", "b"} {
		k := newKit(t, false)
		k.base = "media"
		k.put("sessions", "s1", "0_0_17.png", png(seed), kitMeta("s1"))
		_, r := adoptAll(t, f, adopt.Options{Dir: k.dir, Base: "media"})
		require.Equal(t, 1, r.Taken)
	}
	ref, err := f.Resolve(context.Background(), "media/sessions/s1/0_0_17.png")
	require.NoError(t, err)
	require.Equal(t, png("a"), mustRead(t, f, ref.ID), "the first")
}

func TestPromptKitOddities(t *testing.T) {
	k := newKit(t, true)
	good := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("good"), kitMeta("s1")))
	wrong := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("wrong"), kitMeta("s1")))
	write(t, k.dir, wrong, png("WRONG"))
	gone := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("gone"), kitMeta("s1")))
	require.NoError(t, os.Remove(filepath.Join(k.dir, gone)))
	lost := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("lost"), nil))
	require.NoError(t, os.Remove(filepath.Join(k.dir, lost)))
	bare := "sessions/s2/" + filepath.Base(k.dedupPut("s2", ".png", png("bare"), nil))
	torn := "conversations/c9/" + filepath.Base(k.put("conversations", "c9", hexOf(png("torn"))+".png", png("torn"), nil))
	write(t, k.dir, torn+".meta", []byte(`{"run_id": "r`))
	split := "runs/a_b/" + filepath.Base(k.put("runs", "a_b", "0_0_1.png", png("split"), map[string]any{"run_id": "a/b", "mime_type": "image/png"}))
	elsewhere := kitMeta("s1")
	elsewhere["session_id"] = "other"
	misplaced := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("misplaced"), elsewhere))
	pcm := append([]byte("RIFF\x2c\x00\x00\x00WAVEfmt "), make([]byte, 30)...)
	sound := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".wav", pcm, map[string]any{"session_id": "s1", "mime_type": "audio/pcm", "size_bytes": len(pcm) - 44}))
	forever := kitMeta("s1")
	forever["policy_name"] = "forever"
	policy := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("policy"), forever))
	sized := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("sized"), map[string]any{"session_id": "s1", "mime_type": "image/png", "size_bytes": 5}))
	typed := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", []byte("plain words, no picture"), kitMeta("s1")))
	k.index[strings.Repeat("a", 64)] = "/etc/passwd"
	k.index[strings.Repeat("b", 64)] = "sessions/../../../etc/passwd"
	k.index["no digest"] = "sessions/s1/x.png"
	writeJSON(t, k.dir, ".dedup_index.json", k.index)
	write(t, k.dir, "sessions/s1/half.png.tmp", png("half"))
	write(t, k.dir, "store-stream-1234.tmp", png("half"))
	write(t, k.dir, "notes.txt", []byte("mine"))
	write(t, k.dir, "sessions/s1/deep/er.png", png("deep"))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(k.dir, "sessions/s1/link.png")))

	f := mustOpen(t, t.TempDir())
	items, r := adoptAll(t, f, adopt.Options{Dir: k.dir})
	for path, want := range map[string]struct {
		state adopt.State
		odd   adopt.Odd
	}{
		good: {adopt.Taken, ""}, wrong: {adopt.Left, adopt.OddHash}, gone: {adopt.Left, adopt.OddMissing}, lost: {adopt.Left, adopt.OddMissing},
		bare: {adopt.Taken, adopt.OddMetadata}, torn: {adopt.Taken, adopt.OddMetadata}, split: {adopt.Taken, ""},
		misplaced: {adopt.Taken, adopt.OddPlace}, sound: {adopt.Taken, ""}, sized: {adopt.Taken, adopt.OddSize}, typed: {adopt.Taken, adopt.OddType}, policy: {adopt.Taken, adopt.OddMetadata},
		"sessions/s1/half.png.tmp": {adopt.Left, adopt.OddLitter}, "store-stream-1234.tmp": {adopt.Left, adopt.OddLitter},
		"notes.txt": {adopt.Left, adopt.OddPlace}, "sessions/s1/deep/er.png": {adopt.Left, adopt.OddPlace}, "sessions/s1/link.png": {adopt.Left, adopt.OddSpecial},
	} {
		require.Equal(t, want.state, items[path].State, "%s: %+v", path, items[path])
		require.Equal(t, want.odd, items[path].Odd, "%s: %+v", path, items[path])
		if want.state == adopt.Taken {
			require.Equal(t, hexOf(mustRead(t, f, items[path].Reference)), items[path].SHA256, path)
		}
	}
	require.Equal(t, 9, r.Taken)
	require.Len(t, entries(t, f), 9, "nothing is kept of what was left")
	require.Equal(t, "s2", mustStat(t, f, items[bare].Reference).Metadata.SessionID)
	require.Equal(t, "c9", mustStat(t, f, items[torn].Reference).Metadata.ConversationID)
	require.Equal(t, "a/b", mustStat(t, f, items[split].Reference).Metadata.RunID)
	require.Equal(t, "other", mustStat(t, f, items[misplaced].Reference).Metadata.SessionID)
	e := mustStat(t, f, items[sound].Reference)
	require.Equal(t, "audio/wav", e.MimeType)
	require.Equal(t, "audio/pcm", e.Metadata.Labels[engine.ConvertedFrom])
}

// An index that a crash has cut short is no loss: the names of the files have the
// digests.
func TestPromptKitIndexCutShort(t *testing.T) {
	k := newKit(t, true)
	k.dedupPut("s1", ".png", png("a"), kitMeta("s1"))
	wrong := "sessions/s1/" + filepath.Base(k.dedupPut("s1", ".png", png("b"), kitMeta("s1")))
	write(t, k.dir, wrong, png("B"))
	whole, err := os.ReadFile(filepath.Join(k.dir, ".dedup_index.json"))
	require.NoError(t, err)
	for cut := range len(whole) - 1 {
		write(t, k.dir, ".dedup_index.json", whole[:cut])
		items, r := adoptAll(t, nil, adopt.Options{Dir: k.dir, DryRun: true})
		require.Equal(t, 1, r.Taken, "cut at %d", cut)
		require.Equal(t, adopt.OddIndex, items[".dedup_index.json"].Odd)
		require.Equal(t, adopt.OddHash, items[wrong].Odd)
	}
}

func TestJSON(t *testing.T) {
	j := newJSONStore(t)
	j.put("s1/c1/a.png", png("a"), 3)
	j.put("s1/c1/wrong.png", png("wrong"), 1)
	write(t, j.dir, "s1/c1/wrong.png", png("WRONG"))
	j.put("s1/c1/short.png", png("short"), 1)
	write(t, j.dir, "s1/c1/short.png", png("sho"))
	j.put("s1/c1/gone.png", png("gone"), 1)
	require.NoError(t, os.Remove(filepath.Join(j.dir, "s1/c1/gone.png")))
	j.put("s1/c1/unused.png", png("unused"), 0)
	j.put("s1/c1/negative.png", png("negative"), -3)
	j.put("s1/c1/other.png", png("other"), 1)["hash"] = hexOf(png("a"))
	j.put("s1/c1/absolute.png", png("absolute"), 1)["path"] = filepath.Join(j.dir, "s1/c1/absolute.png")
	j.put("s1/c1/twice.png", png("twice 1"), 1)
	j.put("s1/c1/twice.png", png("twice 2"), 1)
	for i, path := range []string{"../escape.png", "/etc/passwd", "", ".", "a/../../escape.png", "\x00"} {
		j.put("s1/c1/x.png", png(fmt.Sprint("escape", i)), 1)["path"] = path
	}
	require.NoError(t, os.Remove(filepath.Join(j.dir, "s1/c1/x.png")))
	j.index["sha256:zz"] = map[string]any{"path": "s1/c1/a2.png", "ref_count": 1}
	j.index["sha256:"+strings.Repeat("c", 64)] = map[string]any{"path": 5}
	j.save()
	write(t, j.dir, "s1/c1/unlisted.png", png("unlisted"))
	write(t, j.dir, "s1/c1/a.png.meta", []byte("{}"))
	require.NoError(t, os.Symlink("/", filepath.Join(j.dir, "root")))
	before := snapshot(t, j.dir)

	f := mustOpen(t, t.TempDir())
	items, r := adoptAll(t, f, adopt.Options{Dir: j.dir, Pattern: "{session}/{conversation}/*"})
	require.Equal(t, before, snapshot(t, j.dir))
	for path, odd := range map[string]adopt.Odd{
		"wrong": adopt.OddHash, "short": adopt.OddSize, "gone": adopt.OddMissing, "unused": adopt.OddUnused, "negative": adopt.OddUnused,
		"other": adopt.OddEntry, "twice": adopt.OddEntry, "unlisted": adopt.OddUnlisted,
	} {
		item := items["s1/c1/"+path+".png"]
		require.Equal(t, adopt.Left, item.State, path)
		require.Equal(t, odd, item.Odd, "%+v", item)
	}
	require.Equal(t, adopt.OddSpecial, items["root"].Odd)
	require.Equal(t, adopt.OddBookkept, items["s1/c1/a.png.meta"].Odd)
	require.Equal(t, 2, r.Taken)
	e := mustStat(t, f, items["s1/c1/a.png"].Reference)
	require.Equal(t, int64(3), e.Count)
	require.Equal(t, "s1", e.Metadata.SessionID)
	require.Equal(t, "c1", e.Metadata.ConversationID)
	require.Equal(t, time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), e.Metadata.CreatedAt)
	require.Len(t, entries(t, f), 2)
	outside := 0
	for _, item := range items {
		if item.Odd == adopt.OddOutside {
			outside++
		}
	}
	require.Equal(t, 5, outside, "%+v", items)
}

func TestJSONIndexThatCannotBeRead(t *testing.T) {
	j := newJSONStore(t)
	j.put("a.png", png("a"), 1)
	for _, index := range []string{"", "[]", "null", `{"sha256:`, `{"a":{}} x`, `{"a":{},}`, "\xff\xfe"} {
		write(t, j.dir, ".dedup-index.json", []byte(index))
		var last error
		for _, err := range adopt.Adopt(context.Background(), nil, adopt.Options{Dir: j.dir, DryRun: true}) {
			last = err
		}
		require.ErrorIs(t, last, storage.ErrCorrupted, "%q", index)
		require.ErrorContains(t, last, ".dedup-index.json")
	}
}

func TestPlain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "s1/c1/photo.png", png("a"))
	write(t, dir, "s1/c1/copy.png", png("a"))
	write(t, dir, "s1/loose.png", png("b"))
	write(t, dir, "s1/c1/.DS_Store", []byte("x"))
	write(t, dir, "s1/c1/Thumbs.db", []byte("x"))
	write(t, dir, "@eaDir/x.png", png("x"))
	write(t, dir, "s1/\xff/\xfe.png", png("latin"))
	write(t, dir, "inner/.mediabolt/staging/0/x", png("x"))
	f := mustOpen(t, t.TempDir())
	items, r := adoptAll(t, f, adopt.Options{Dir: dir, Pattern: "{session}/{conversation}/*"})
	require.Equal(t, 2, r.Taken)
	require.Equal(t, adopt.OddPattern, items["s1/loose.png"].Odd)
	require.Equal(t, adopt.OddRefused, items["s1/\xff/\xfe.png"].Odd)
	require.Equal(t, adopt.OddForeign, items["inner/.mediabolt"].Odd)
	require.Equal(t, adopt.OddLitter, items["@eaDir"].Odd)
	e := mustStat(t, f, items["s1/c1/photo.png"].Reference)
	require.Equal(t, int64(2), e.Refs, "equal files share their bytes")
	require.Equal(t, "image/png", e.MimeType)
	require.Equal(t, "photo.png", e.Metadata.Labels["file_name"])

	// Without a pattern, the rest is taken too, and nothing twice.
	items, r = adoptAll(t, f, adopt.Options{Dir: dir})
	require.Equal(t, 2, r.Taken)
	require.Equal(t, 2, r.Known)
	ref, err := f.Resolve(context.Background(), filepath.Join(dir, "s1/\xff/\xfe.png"))
	require.NoError(t, err)
	require.Equal(t, items["s1/\xff/\xfe.png"].Reference, ref.ID)
}

func TestSecondRunAfterChanges(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for _, name := range []string{"same", "longer", "deleted", "gone"} {
		write(t, dir, name, []byte(name))
	}
	f := mustOpen(t, t.TempDir())
	first, _ := adoptAll(t, f, adopt.Options{Dir: dir})
	write(t, dir, "longer", []byte("has grown since"))
	require.NoError(t, f.Delete(ctx, &storage.StorageReference{ID: first["deleted"].Reference}))
	require.NoError(t, os.Remove(filepath.Join(dir, "gone")))
	items, r := adoptAll(t, f, adopt.Options{Dir: dir})
	require.Equal(t, adopt.OddChanged, items["longer"].Odd)
	require.Equal(t, adopt.OddDeleted, items["deleted"].Odd)
	require.Equal(t, adopt.Report{Known: 2, Left: 1, Odd: 1, Trouble: 1}, r)
	require.Len(t, entries(t, f), 3)
}

func TestDryRun(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.png", png("a"))
	items, r := adoptAll(t, nil, adopt.Options{Dir: dir, DryRun: true})
	require.Equal(t, adopt.Ready, items["a.png"].State)
	require.Equal(t, hexOf(png("a")), items["a.png"].SHA256)
	require.Equal(t, 1, r.Taken)
	f := mustOpen(t, t.TempDir())
	_, r = adoptAll(t, f, adopt.Options{Dir: dir, DryRun: true})
	require.Equal(t, 1, r.Taken)
	require.Empty(t, entries(t, f))
	adoptAll(t, f, adopt.Options{Dir: dir})
	_, r = adoptAll(t, f, adopt.Options{Dir: dir, DryRun: true})
	require.Equal(t, adopt.Report{Known: 1}, r)
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	f := mustOpen(t, t.TempDir())
	dir := t.TempDir()
	write(t, dir, "a.png", png("a"))
	both := t.TempDir()
	write(t, both, ".dedup-index.json", []byte("{}"))
	write(t, both, ".dedup_index.json", []byte("{}"))
	own := t.TempDir()
	write(t, own, ".mediabolt/x", nil)
	for want, o := range map[string]adopt.Options{
		"no directory":         {},
		`format "zip"`:         {Dir: dir, Format: "zip"},
		"a pattern for":        {Dir: dir, Format: adopt.PromptKit, Pattern: "*"},
		"{sesion}":             {Dir: dir, Pattern: "{sesion}/*"},
		"there twice":          {Dir: dir, Pattern: "{run}/{run}/*"},
		"relative to":          {Dir: dir, Pattern: "/{run}/*"},
		"InPlace":              {Dir: dir, InPlace: true, DryRun: true},
		"no .dedup-index.json": {Dir: dir, Format: adopt.JSON},
		"both .dedup":          {Dir: both},
		"store of mediabolt's": {Dir: own},
	} {
		var last error
		for _, err := range adopt.Adopt(context.Background(), f, o) {
			last = err
		}
		require.ErrorIs(t, last, storage.ErrInvalidConfig, want)
		require.ErrorContains(t, last, want)
	}
	var last error
	for _, err := range adopt.Adopt(context.Background(), f, adopt.Options{Dir: filepath.Join(dir, "nowhere")}) {
		last = err
	}
	require.ErrorIs(t, last, os.ErrNotExist)
}

func TestCheckApart(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a/b/c", nil)
	require.NoError(t, os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "link")))
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, adopt.CheckApart(at("a"), at("x")))
	require.NoError(t, adopt.CheckApart(at("a"), at("ab")))
	for _, pair := range [][2]string{{"a", "a"}, {"a", "a/b"}, {"a/b", "a"}, {"link", "a/new/store"}, {"a/b", "link"}} {
		require.ErrorIs(t, adopt.CheckApart(at(pair[0]), at(pair[1])), storage.ErrInvalidConfig, pair)
	}
}

// An adoption that ctx ends keeps what it has, and the next goes on.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		write(t, dir, fmt.Sprintf("%03d.png", i), png(fmt.Sprint(i)))
	}
	f := mustOpen(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	taken := 0
	var last error
	for item, err := range adopt.Adopt(ctx, f, adopt.Options{Dir: dir}) {
		if last = err; err == nil && item.State == adopt.Taken {
			taken++
		}
		if taken == 100 {
			cancel()
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.GreaterOrEqual(t, taken, 100)
	for item, err := range adopt.Adopt(context.Background(), f, adopt.Options{Dir: dir}) {
		require.NoError(t, err)
		if item.State == adopt.Taken {
			break // whose caller has had enough ends it too
		}
	}
	_, r := adoptAll(t, f, adopt.Options{Dir: dir})
	require.Equal(t, 300, r.Taken+r.Known)
	require.Len(t, entries(t, f), 300)
}

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		write(t, dir, fmt.Sprint(i), make([]byte, i*1000))
	}
	write(t, dir, "unreadable", nil)
	var last adopt.Progress
	f := mustOpen(t, t.TempDir())
	adoptAll(t, f, adopt.Options{Dir: dir, Progress: func(p adopt.Progress) {
		require.GreaterOrEqual(t, p.Bytes, last.Bytes)
		require.LessOrEqual(t, p.Bytes, p.TotalBytes)
		last = p
	}})
	require.Equal(t, adopt.Progress{Files: 21, TotalFiles: 21, Bytes: 190000, TotalBytes: 190000}, last)
}

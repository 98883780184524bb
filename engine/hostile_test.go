package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// walled is a store in the middle of files that it must not touch.
type walled struct {
	config engine.FileStoreConfig
	around string // a directory above the base directory
	before map[string]string
}

func newWalled(t testing.TB, config engine.FileStoreConfig) *walled {
	t.Helper()
	around := t.TempDir()
	config.BaseDir = filepath.Join(around, "a", "b", "base")
	require.NoError(t, os.MkdirAll(config.BaseDir, 0o700))
	for _, name := range []string{"sentinel", "a/sentinel", "a/b/sentinel", "a/b/s1", "a/b/outside/secret", "a/b/base-2/x/y"} {
		name = filepath.Join(around, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte("not of the store: "+name), 0o600))
	}
	w := &walled{config: config, around: around}
	w.before = w.outside(t)
	return w
}

// outside is every file and directory outside the base directory, with its
// content or kind.
func (w *walled) outside(t testing.TB) map[string]string {
	t.Helper()
	tree := map[string]string{}
	require.NoError(t, filepath.WalkDir(w.around, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == w.config.BaseDir:
			return fs.SkipDir
		case e.IsDir():
			tree[name] = "directory"
			return nil
		}
		data, err := os.ReadFile(name)
		tree[name] = string(data)
		return err
	}))
	return tree
}

// control is the names in the control directory. A checkpoint before leaves
// only those that are always there.
func (w *walled) control(t testing.TB, f *engine.FileStore) []string {
	t.Helper()
	require.NoError(t, f.Checkpoint(context.Background()))
	var names []string
	require.NoError(t, fs.WalkDir(os.DirFS(filepath.Join(w.config.BaseDir, ".mediabolt")), ".", func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	}))
	return names
}

func (w *walled) requireUntouched(t testing.TB) {
	t.Helper()
	require.Equal(t, w.before, w.outside(t), "outside the base directory")
}

// hostileIDs are IDs that mean something to a path, a filesystem, a terminal or
// the store itself, all distinct.
func hostileIDs() []string {
	const blobName = "a1b2c3-00000000000000000000000000"
	ids := []string{
		".", "..", "...", "../..", "../../a", "../sentinel", "../outside/secret", "..\\..", "a/../../..", "/", "//", "/etc/passwd",
		"\\", "\\\\host\\share", "C:", "C:\\Windows", "c:/x", "file:///etc/passwd", "~", "~root", "$HOME", "`id`", "$(id)", "a;b", "a|b",
		"\x00", "a\x00b", "a\x00/../..", "\n", "a\nb", "\r", "\t", "\x1b[2J", "\x7f", "\u0085", "\u2028",
		" ", " a", "a ", "a.", "a..", ".a", "a. .", "-rf", "--", "*", "?", "[a-z]", `"`, "'", "<>",
		".mediabolt", ".MEDIABOLT", ".mediabolt/", ".mediabolt/index.db", "../.mediabolt", "index.db", "staging", "lost+found",
		"%", "%2e%2e", "%2E%2E", "%2f", "%%", "%h", "%h0123456789abcdef0123456789abcdef", "%2emediabolt",
		"CON", "con", "Con.txt", "NUL", "nul.", "AUX", "PRN", "COM1", "com1.log", "COM¹", "LPT9", "CONIN$", "CLOCK$", "desktop.ini",
		"no-session", "no-conversation", "no-run", "No-Session",
		blobName, blobName + ".png", blobName + ".png.meta", blobName + ".", "a.meta",
		"\u00e9", "e\u0301", "\ufb01", "fi", "\u0130", "\u0131", "\u00df", "SS", "\u212b", "\u00c5", "日本語", "\U0001f4f7",
		"\U0001f469\u200d\U0001f467", "\u202egnp.exe", "\u200b", "\ufeff", "\ufffd", "\U0010ffff", "\u05e9\u05dc\u05d5\u05dd",
		"\u0645\u0631\u062d\u0628\u0627", "a\u0300\u0301\u0302\u0303",
		"A", "a", strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("../", 341), strings.Repeat("/", 1024),
		strings.Repeat("é", 512), strings.Repeat("日", 341), strings.Repeat("x", 1023) + "y", strings.Repeat("x", 1023) + "z",
		strings.Repeat("%", 120), strings.Repeat("%", 41), strings.Repeat(" ", 300), strings.Repeat("a", 119) + ".", strings.Repeat("a", 120) + "é",
	}
	return ids
}

func TestHostileIDsStayInside(t *testing.T) {
	ctx := context.Background()
	for _, mode := range storage.OrganizationModes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWalled(t, engine.FileStoreConfig{Organization: mode, Sync: engine.SyncNone})
			f := mustOpen(t, w.config)
			control := w.control(t, f)
			dirs := map[string]string{}
			refs := map[string]*storage.StorageReference{}
			for _, id := range hostileIDs() {
				ref, err := f.Store(ctx, content([]byte(id)), storage.MediaMetadata{RunID: id, SessionID: id, ConversationID: id, UserID: id})
				require.NoError(t, err, "%.60q", id)
				refs[id] = ref
				name := ref.Metadata["path"]
				require.True(t, filepath.IsLocal(filepath.FromSlash(name)), "%.60q became %q", id, name)
				require.False(t, strings.HasPrefix(name, ".mediabolt"), "%.60q became %q", id, name)
				require.Equal(t, path.Clean(name), name)
				for _, element := range strings.Split(name, "/") {
					require.LessOrEqual(t, len(element), 255-len(".meta"), "%.60q became %q", id, name)
					require.False(t, strings.HasPrefix(element, "."), "%.60q became %q, which is hidden", id, name)
				}
				if mode != storage.OrganizationFlat {
					was, taken := dirs[path.Dir(name)]
					require.False(t, taken, "%.60q and %.60q share %q", id, was, path.Dir(name))
					dirs[path.Dir(name)] = id
				}
				info, err := os.Lstat(filepath.Join(w.config.BaseDir, filepath.FromSlash(name)))
				require.NoError(t, err)
				require.True(t, info.Mode().IsRegular())
			}
			w.requireUntouched(t)
			require.Equal(t, control, w.control(t, f), "the control directory")
			require.NoError(t, f.Close())

			f = mustOpen(t, w.config)
			for finding, err := range f.Verify(ctx, engine.VerifyOptions{}) {
				require.NoError(t, err)
				t.Errorf("found: %+v", finding)
			}
			for id, ref := range refs {
				require.Equal(t, id, string(mustRetrieve(t, f, ref)))
				for _, q := range []engine.Query{{SessionID: id}, {ConversationID: id}, {RunID: id}, {UserID: id}} {
					n := 0
					for e, err := range f.List(ctx, q) {
						require.NoError(t, err)
						require.Equal(t, ref.ID, e.Reference.ID)
						require.Equal(t, id, e.Metadata.SessionID)
						n++
					}
					require.Equal(t, 1, n, "%+.60v", q)
				}
				require.NoError(t, f.Delete(ctx, ref))
			}
			requireEmpty(t, f, w.config.BaseDir)
			w.requireUntouched(t)
			require.Equal(t, control, w.control(t, f), "the control directory")
		})
	}
}

func TestOverlongIDsAreRefused(t *testing.T) {
	w := newWalled(t, engine.FileStoreConfig{Sync: engine.SyncNone})
	f := mustOpen(t, w.config)
	for _, id := range []string{strings.Repeat("x", 10<<10), strings.Repeat("../", 4000), strings.Repeat("\x00", 10<<10)} {
		for field, m := range map[string]storage.MediaMetadata{
			"session": {SessionID: id}, "conversation": {ConversationID: id}, "run": {RunID: id}, "user": {UserID: id},
		} {
			_, err := f.Store(context.Background(), content([]byte("x")), m)
			require.ErrorIs(t, err, storage.ErrInvalidMedia)
			require.ErrorContains(t, err, field+" ID")
			require.ErrorContains(t, err, fmt.Sprint(len(id)))
			require.Less(t, len(err.Error()), 1000)
		}
	}
	requireEmpty(t, f, w.config.BaseDir)
	w.requireUntouched(t)
}

func TestHostileMimeTypesAndLabelsStayInside(t *testing.T) {
	ctx := context.Background()
	w := newWalled(t, engine.FileStoreConfig{Organization: storage.OrganizationFlat, Sync: engine.SyncNone})
	f := mustOpen(t, w.config)
	for _, evil := range []string{"../../sentinel", "image/../../x", "a/b;c=../..", "/", "image/png\x00", "image/%2e%2e", "png", "image/.png", `image/"x`} {
		ref, err := f.Store(ctx, &storage.MediaContent{Type: strings.ReplaceAll(evil, "\x00", ""), MimeType: evil, Data: "AAAA"},
			storage.MediaMetadata{Labels: map[string]string{evil: evil, "v": evil, `{"v":1}`: `{"v":1,"crc":"00000000"}` + "\n"}})
		if err != nil {
			require.ErrorIs(t, err, storage.ErrInvalidMedia, "%q", evil)
			continue
		}
		require.Equal(t, ref.ID+".bin", ref.Metadata["path"], "%q", evil)
		require.Equal(t, evil, mustStat(t, f, ref).Metadata.Labels[evil])
	}
	w.requireUntouched(t)
}

func TestHostileReferences(t *testing.T) {
	ctx := context.Background()
	w := newWalled(t, engine.FileStoreConfig{EnableDeduplication: true})
	f := mustOpen(t, w.config)
	ref := mustStore(t, f, []byte("precious"), storage.MediaMetadata{SessionID: "s"})
	good := ref.ID
	foreign := mustOpen(t, engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true})
	other := mustStore(t, foreign, []byte("precious"), storage.MediaMetadata{SessionID: "s"})

	last := strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", good[len(good)-1])
	malformed := map[string]*storage.StorageReference{
		"nil": nil, "empty": {}, "of another backend": {ID: good, Backend: "s3"}, "of a backend in upper case": {ID: good, Backend: "FILE"},
	}
	for name, id := range map[string]string{
		"path":                  "../../../../etc/passwd",
		"path of its length":    strings.Repeat("../", 11),
		"the blob's path":       ref.Metadata["path"],
		"file name":             good + ".bin",
		"separator inside":      good[:6] + "/" + good[7:],
		"backslash inside":      good[:10] + "\\" + good[11:],
		"NUL at the end":        good + "\x00",
		"NUL inside":            good[:12] + "\x00" + good[13:],
		"upper case":            strings.ToUpper(good),
		"upper case hash":       "ABCDEF" + good[6:],
		"a letter left out":     good[:7] + strings.Repeat("l", 26),
		"cut":                   good[:len(good)-1],
		"one more":              good + "0",
		"over-long":             strings.Repeat(good, 40_000),
		"white space before":    " " + good,
		"line break after":      good + "\n",
		"line break inside":     good[:32] + "\n" + good[32:],
		"line break for a sign": good[:32] + "\n",
		"hash alone":            good[:6],
		"UUID alone":            good[7:],
		"no dash":               good[:6] + "_" + good[7:],
		"padding":               good[:31] + "==",
		"Unicode digits":        "٠٠٠٠٠٠" + good[6:],
		"not UTF-8":             good[:7] + "\xff\xfe" + good[9:],
		"a RFC 9562 UUID":       "018f3a5e-7b1c-7d2e-8f3a-5e7b1c7d2e8f",
		"second spelling":       good[:32] + string("0123456789abcdefghjkmnpqrstvwxyz"[last|1]),
		"third spelling":        good[:32] + string("0123456789abcdefghjkmnpqrstvwxyz"[last|2]),
	} {
		malformed[name] = &storage.StorageReference{ID: id, Backend: "file"}
	}
	unknown := map[string]*storage.StorageReference{
		"zeros":                      {ID: "000000-00000000000000000000000000"},
		"the highest":                {ID: "ffffff-zzzzzzzzzzzzzzzzzzzzzzzzzw"},
		"another hash before it":     {ID: "012345" + good[6:]},
		"of another store":           {ID: other.ID, Metadata: ref.Metadata},
		"another UUID after its own": {ID: good[:10] + "0000000000" + good[20:]},
	}
	calls := map[string]func(*storage.StorageReference) error{
		"Retrieve": func(r *storage.StorageReference) error { _, err := f.Retrieve(ctx, r); return err },
		"Open":     func(r *storage.StorageReference) error { _, err := f.Open(ctx, r); return err },
		"Stat":     func(r *storage.StorageReference) error { _, err := f.Stat(ctx, r); return err },
	}
	for name, r := range malformed {
		for method, call := range calls {
			err := call(r)
			require.ErrorIs(t, err, storage.ErrInvalidRef, "%s of %s", method, name)
			require.NotErrorIs(t, err, storage.ErrNotFound, "%s of %s", method, name)
			require.Less(t, len(err.Error()), 1000, "%s of %s", method, name)
		}
		require.ErrorIs(t, f.Delete(ctx, r), storage.ErrInvalidRef, "Delete of %s", name)
	}
	for name, r := range unknown {
		for method, call := range calls {
			err := call(r)
			require.ErrorIs(t, err, storage.ErrNotFound, "%s of %s", method, name)
			require.ErrorIs(t, err, fs.ErrNotExist, "%s of %s", method, name)
			require.NotErrorIs(t, err, storage.ErrCorrupted, "%s of %s", method, name)
			require.ErrorContains(t, err, r.ID)
		}
		require.NoError(t, f.Delete(ctx, r), "Delete of %s", name)
	}
	require.Equal(t, []byte("precious"), mustRetrieve(t, f, ref), "nobody harmed it")
	require.Equal(t, []byte("precious"), mustRetrieve(t, foreign, other))
	w.requireUntouched(t)
}

func TestHostileBase64(t *testing.T) {
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), Sync: engine.SyncNone}
	f := mustOpen(t, config)
	long := strings.Repeat("QUJD", 500_000)
	for name, data := range map[string]string{
		"one character":               "A",
		"five characters":             "AAAAA",
		"padding alone":               "=",
		"much padding alone":          "====",
		"padding in front":            "=AAA",
		"padding inside":              "AA==AAAA",
		"too much padding":            "AAAA=",
		"three of padding":            "A===",
		"too little padding":          "AA=",
		"endless padding":             "AA" + strings.Repeat("=", 1<<20),
		"a character that is none":    "AA!A",
		"a high byte":                 "AA\xffA",
		"a NUL":                       "AA\x00A",
		"a NUL at the end":            "AAAA\x00",
		"a line break that is none":   "AAAA\u2028AAAA",
		"a byte order mark":           "\ufeffAAAA",
		"full-width letters":          "ＡＡＡＡ",
		"mixed alphabets":             "+_AA",
		"mixed alphabets, far apart":  "+" + long + "_AA",
		"hexadecimal with a prefix":   "0x:00",
		"a URL that is no data: URL":  "https://example.com/a.png",
		"a wrong character far ahead": long + "!" + long,
		"a wrong character last":      long + "AAA!",
		"JSON":                        `{"data":"AAAA"}`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []string{data, "data:image/png;base64," + data} {
				_, err := f.Store(context.Background(), &storage.MediaContent{Data: d}, storage.MediaMetadata{})
				require.ErrorIs(t, err, storage.ErrInvalidMedia)
				require.Less(t, len(err.Error()), 1000, "an error is no copy of what was passed")
			}
			requireEmpty(t, f, config.BaseDir)
		})
	}
	t.Run("huge white space is nothing but slow", func(t *testing.T) {
		white := strings.Repeat(" \r\n\t", 1<<20)
		ref, err := f.Store(context.Background(), &storage.MediaContent{Data: white + "QU" + white + "JD" + white}, storage.MediaMetadata{})
		require.NoError(t, err)
		require.Equal(t, []byte("ABC"), mustRetrieve(t, f, ref))
	})
}

func TestHostileSidecarsDoNotHurt(t *testing.T) {
	ctx := context.Background()
	config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, Sync: engine.SyncNone}
	data := bytesOf(1000, 1)
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
	victim := mustStore(t, f, []byte("victim"), storage.MediaMetadata{SessionID: "v"})
	require.NoError(t, f.WriteSidecars(ctx))
	sidecar := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"])) + ".meta"
	original, err := os.ReadFile(sidecar)
	require.NoError(t, err)
	victims, err := os.ReadFile(filepath.Join(config.BaseDir, filepath.FromSlash(victim.Metadata["path"])) + ".meta")
	require.NoError(t, err)
	require.NoError(t, f.Close())

	for name, bad := range map[string][]byte{
		"empty":              {},
		"zeros":              make([]byte, 1<<20),
		"noise":              bytesOf(1<<20, 7),
		"another blob's":     victims,
		"one line twice":     append(bytes.Clone(original), original...),
		"deep JSON":          []byte(strings.Repeat("[", 1<<20)),
		"nothing but starts": []byte(strings.Repeat(`{"v":`, 10_000) + `,"crc":"00000000"}`),
		"path for an ID":     []byte(`{"v":1,"deleted":"../../../../etc/passwd","crc":"00000000"}` + "\n"),
		"half a line":        original[:len(original)/2],
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(sidecar, bad, 0o600))
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			require.Equal(t, data, mustRetrieve(t, f, ref))
			dup := mustStore(t, f, data, storage.MediaMetadata{SessionID: "t"})
			for _, finding := range damage(t, f) {
				require.Equal(t, storage.FindingSidecar, finding.Kind, "%+v", finding)
			}
			require.NoError(t, f.Abandon())
			f, err = engine.Open(ctx, config)
			require.NoError(t, err, "recovery reads the sidecar")
			require.NoError(t, f.Delete(ctx, dup))
			require.Equal(t, data, mustRetrieve(t, f, ref))
			require.Equal(t, []byte("victim"), mustRetrieve(t, f, victim))
			require.NoError(t, f.Close())
		})
	}
	require.NoError(t, os.WriteFile(sidecar, original, 0o600))

	t.Run("of no blob", func(t *testing.T) {
		f := mustOpen(t, config)
		planted := []string{"s/000000-00000000000000000000000000.png.meta", "x.meta", "s/.meta"}
		for _, name := range planted {
			require.NoError(t, os.WriteFile(filepath.Join(config.BaseDir, filepath.FromSlash(name)), original, 0o600))
		}
		found := map[string]storage.FindingKind{}
		for finding, err := range f.Verify(ctx, engine.VerifyOptions{}) {
			require.NoError(t, err)
			found[finding.Path] = finding.Kind
		}
		require.Equal(t, map[string]storage.FindingKind{
			planted[0]: storage.FindingOrphan, planted[1]: storage.FindingForeignFile, planted[2]: storage.FindingForeignFile,
		}, found)
		for _, name := range planted {
			require.NoError(t, os.Remove(filepath.Join(config.BaseDir, filepath.FromSlash(name))))
		}
	})
}

// A pipe has no end and may have no other side: nothing may wait for it.
func TestNamedPipesInTheTreeBlockNobody(t *testing.T) {
	ctx := context.Background()
	data := bytesOf(1000, 1)
	for _, suffix := range []string{"", ".meta"} {
		t.Run("in place of a blob"+suffix, func(t *testing.T) {
			config := engine.FileStoreConfig{BaseDir: t.TempDir(), EnableDeduplication: true, NoSyncFS: true}
			f, err := engine.Open(ctx, config)
			require.NoError(t, err)
			ref := mustStore(t, f, data, storage.MediaMetadata{})
			pipe := filepath.Join(config.BaseDir, filepath.FromSlash(ref.Metadata["path"])) + suffix
			require.NoError(t, f.Checkpoint(ctx))
			require.NoError(t, os.Remove(pipe))
			mkfifo(t, pipe)

			through := make(chan struct{})
			go func() {
				defer close(through)
				_, _ = f.Retrieve(ctx, ref)
				_, err := f.Store(ctx, content(data), storage.MediaMetadata{})
				if err == nil {
					err = f.Checkpoint(ctx)
				}
				for _, e := range f.Verify(ctx, engine.VerifyOptions{}) {
					err = errors.Join(err, e)
				}
				if err = errors.Join(err, f.Delete(ctx, ref), f.Close()); err != nil {
					t.Errorf("beside a pipe: %v", err)
				}
			}()
			select {
			case <-through:
				return
			case <-time.After(10 * time.Second):
			}
			t.Error("a call waits for the other side of a pipe")
			// Being both sides lets it go on, however often it opens the pipe.
			both, err := os.OpenFile(pipe, os.O_RDWR, 0)
			require.NoError(t, err)
			<-through
			require.NoError(t, both.Close())
		})
	}
}

func TestSymbolicLinksLeadNowhereOutside(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("making symbolic links needs a privilege on Windows")
	}
	ctx := context.Background()
	data := bytesOf(1000, 1)
	newLinked := func(t *testing.T) (w *walled, f *engine.FileStore, outside string) {
		w = newWalled(t, engine.FileStoreConfig{EnableDeduplication: true, Sync: engine.SyncNone})
		outside = filepath.Join(w.around, "a", "b", "outside")
		return w, mustOpen(t, w.config), outside
	}
	for name, target := range map[string]string{"absolute": "", "relative": "../outside"} {
		t.Run("in place of a session's directory, "+name, func(t *testing.T) {
			w, f, outside := newLinked(t)
			if target == "" {
				target = outside
			}
			link := filepath.Join(w.config.BaseDir, "s1")
			require.NoError(t, os.Symlink(target, link))
			_, err := f.Store(ctx, content(data), storage.MediaMetadata{SessionID: "s1"})
			require.Error(t, err)
			w.requireUntouched(t)
			require.Zero(t, mustStats(t, f).References)
			require.Empty(t, stagedFiles(t, f, w.config.BaseDir))
			info, err2 := os.Lstat(link)
			require.NoError(t, err2)
			require.NotZero(t, info.Mode()&fs.ModeSymlink, "the link is not ours to remove")
			requireSentinel(t, err, w.config.BaseDir)
		})
	}
	t.Run("in place of a blob", func(t *testing.T) {
		w, f, outside := newLinked(t)
		ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
		require.NoError(t, f.Checkpoint(ctx))
		name := filepath.Join(w.config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
		secret := filepath.Join(outside, "copy")
		require.NoError(t, os.WriteFile(secret, data, 0o600))
		w.before = w.outside(t)
		require.NoError(t, os.Remove(name))
		require.NoError(t, os.Symlink(secret, name))

		_, err := f.Retrieve(ctx, ref)
		require.Error(t, err, "the same bytes, but not the store's")
		found := damage(t, f)
		require.Len(t, found, 1)
		require.Equal(t, ref.Metadata["path"], found[0].Path)
		again := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
		require.Equal(t, ref.Metadata["path"], again.Metadata["path"], "healed where it was")
		info, err2 := os.Lstat(name)
		require.NoError(t, err2)
		require.True(t, info.Mode().IsRegular())
		require.Equal(t, data, mustRetrieve(t, f, ref))
		w.requireUntouched(t)
		requireSentinel(t, err, w.config.BaseDir)
	})
	t.Run("in place of a blob that is deleted", func(t *testing.T) {
		w, f, outside := newLinked(t)
		ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
		name := filepath.Join(w.config.BaseDir, filepath.FromSlash(ref.Metadata["path"]))
		require.NoError(t, os.Remove(name))
		require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), name))
		require.NoError(t, f.Delete(ctx, ref))
		w.requireUntouched(t)
		requireEmpty(t, f, w.config.BaseDir)
	})
	t.Run("in place of a sidecar", func(t *testing.T) {
		w, f, outside := newLinked(t)
		ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
		require.NoError(t, f.WriteSidecars(ctx))
		name := filepath.Join(w.config.BaseDir, filepath.FromSlash(ref.Metadata["path"])) + ".meta"
		require.NoError(t, os.Remove(name))
		require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), name))
		dup := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s"})
		require.NoError(t, f.Checkpoint(ctx))
		w.requireUntouched(t)
		require.NoError(t, f.Delete(ctx, ref))
		require.NoError(t, f.Delete(ctx, dup))
		w.requireUntouched(t)
		requireEmpty(t, f, w.config.BaseDir)
	})
	t.Run("in place of the directory of a blob", func(t *testing.T) {
		w, f, outside := newLinked(t)
		ref := mustStore(t, f, data, storage.MediaMetadata{SessionID: "s", ConversationID: "c"})
		dir := filepath.Join(w.config.BaseDir, "s", "c")
		moved := filepath.Join(outside, "c")
		require.NoError(t, os.Rename(dir, moved))
		w.before = w.outside(t)
		require.NoError(t, os.Symlink(moved, dir))
		_, err := f.Retrieve(ctx, ref)
		require.Error(t, err)
		requireSentinel(t, err, w.config.BaseDir)
		_, err = f.Store(ctx, content(data), storage.MediaMetadata{SessionID: "s", ConversationID: "c"})
		require.Error(t, err)
		requireSentinel(t, err, w.config.BaseDir)
		w.requireUntouched(t)
		require.NoError(t, os.Remove(dir))
		require.NoError(t, os.Rename(moved, dir))
		require.Equal(t, data, mustRetrieve(t, f, ref))
	})
	for _, part := range []string{".mediabolt", ".mediabolt/staging", ".mediabolt/index.db"} {
		t.Run("in place of "+part, func(t *testing.T) {
			w, f, outside := newLinked(t)
			ref := mustStore(t, f, data, storage.MediaMetadata{})
			require.NoError(t, f.Close())
			name := filepath.Join(w.config.BaseDir, filepath.FromSlash(part))
			moved := filepath.Join(outside, "moved")
			require.NoError(t, os.Rename(name, moved))
			w.before = w.outside(t)
			require.NoError(t, os.Symlink(moved, name))
			_, err := engine.Open(ctx, w.config)
			require.Error(t, err)
			w.requireUntouched(t)
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Rename(moved, name))
			f = mustOpen(t, w.config)
			require.Equal(t, data, mustRetrieve(t, f, ref))
			requireSentinel(t, err, w.config.BaseDir)
		})
	}
}

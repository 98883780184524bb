package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// settings are a directory with what the commands work on: a store, an earlier backup
// of it, an archive of all that is in it, and a folder of files. They tell what is in
// these: by the ID of a reference, or the path of a file, what belongs to that.
type settings struct {
	dir                  string
	r                    *rand.Rand
	whole, saved, folder map[string]string
	twins                []string // files of blobs whose bytes others have, relative to the store
	orphans              []string // files that damage has added, likewise
}

func (s *settings) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// newSettings makes them.
func newSettings(t *testing.T, r *rand.Rand, references int) *settings {
	t.Helper()
	s := &settings{dir: t.TempDir(), r: r, folder: map[string]string{}}
	s.fill(t, engine.FileStoreConfig{EnableDeduplication: true}, references)
	out, code := mediabolt(t, "backup", "--copy", "--store", s.path("store"), s.path("saved"))
	require.Equal(t, exitOK, code, out)
	s.saved = holdings(t, s.path("saved"))
	s.fill(t, engine.FileStoreConfig{}, references/8)
	s.change(t)
	s.whole = holdings(t, s.path("store"))
	out, code = mediabolt(t, "export", "--store", s.path("store"), "-o", s.path("media.tar"))
	require.Equal(t, exitOK, code, out)
	for i := range references / 2 {
		name := s.path("folder", fmt.Sprint("session ", i%5), fmt.Sprint(i))
		data := fmt.Appendf(nil, "file %d", i/2)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, data, 0o600))
		s.folder[name] = sumOf(data)
	}
	return s
}

// fill stores references in some sessions, a third of them to bytes that others have.
func (s *settings) fill(t *testing.T, config engine.FileStoreConfig, references int) {
	t.Helper()
	config.BaseDir, config.Sync = s.path("store"), engine.SyncNone
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	for i := range references {
		n := i
		if i%3 == 2 {
			n = i / 3
		}
		data := bytes.Repeat(fmt.Append(nil, n, " "), 1+n*7%900)
		ref, err := f.Store(context.Background(), &storage.MediaContent{
			MimeType: "image/png", Data: "data:;base64," + base64.StdEncoding.EncodeToString(data),
		}, storage.MediaMetadata{
			SessionID: fmt.Sprint("session ", i%7), ConversationID: fmt.Sprint("conversation ", i%3), RunID: fmt.Sprint("run ", i%2),
			UserID: fmt.Sprint("user ", i%4), Policy: []string{"", "2900-01-01T00:00:00Z"}[i%2], Labels: map[string]string{"n": strconv.Itoa(i)},
		})
		require.NoError(t, err)
		if !config.EnableDeduplication {
			entry, err := f.Stat(context.Background(), ref)
			require.NoError(t, err)
			s.twins = append(s.twins, entry.Path)
		}
	}
	require.NoError(t, f.Close())
}

// change makes the store another than its backup: some references are deleted, some
// are held, and a session that the backup has is erased.
func (s *settings) change(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: s.path("store")})
	require.NoError(t, err)
	erased, deleted := "session 6", 0
	require.NoError(t, f.Hold(ctx, engine.Hold{Name: "held", Target: engine.HoldTarget{Kind: engine.HoldSession, ID: "session 5"}}))
	e, err := f.Erase(ctx, engine.Query{SessionID: erased}, engine.EraseOptions{})
	require.NoError(t, err)
	require.NotZero(t, e.References)
	for entry, err := range f.List(ctx, engine.Query{SessionID: "session 1"}) {
		require.NoError(t, err)
		if deleted++; deleted%2 == 0 {
			require.NoError(t, f.Delete(ctx, &entry.Reference))
		}
	}
	s.twins = existing(t, f, s.twins)
	require.NoError(t, f.Close())
	for id, what := range s.saved {
		if strings.Contains(what, erased) {
			delete(s.saved, id) // a restore with the ledger leaves it out
		}
	}
}

// existing are the twins that no deletion has taken, nor what has their bytes as well.
func existing(t *testing.T, f *engine.FileStore, twins []string) (left []string) {
	t.Helper()
	digests, elsewhere := map[string]storage.Digest{}, map[storage.Digest]bool{}
	for e, err := range f.List(context.Background(), engine.Query{}) {
		require.NoError(t, err)
		digests[e.Path] = e.Digest
		if !slices.Contains(twins, e.Path) {
			elsewhere[e.Digest] = true
		}
	}
	for _, name := range twins {
		if d, there := digests[name]; there && elsewhere[d] {
			left = append(left, name)
		}
	}
	require.NotEmpty(t, left)
	return left
}

// damage takes sidecars away, cuts files whose bytes other blobs have, and adds files
// that no row names.
func (s *settings) damage(t *testing.T) {
	t.Helper()
	for i, name := range s.twins {
		name = s.path("store", filepath.FromSlash(name))
		switch i % 3 {
		case 0:
			require.NoError(t, os.Truncate(name, 1))
		case 1:
			require.NoError(t, os.Remove(name+".meta"))
		default:
			orphan := fmt.Sprintf("a7f3f7-06h0aeyy8hrzvc6fkc55%05d0.png", i)
			require.NoError(t, os.WriteFile(s.path("store", orphan), fmt.Append(nil, i), 0o600))
			s.orphans = append(s.orphans, orphan)
		}
	}
}

// copy is a part of the settings in another directory.
func (s *settings) copy(t *testing.T, dir string, uses []string) *settings {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, name := range uses {
		info, err := os.Stat(s.path(name))
		require.NoError(t, err)
		if info.IsDir() {
			require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(s.path(name))))
		} else {
			require.NoError(t, os.Link(s.path(name), filepath.Join(dir, name)))
		}
	}
	c := *s
	c.dir, c.folder = dir, map[string]string{}
	for name, what := range s.folder {
		rest, err := filepath.Rel(s.dir, name)
		require.NoError(t, err)
		c.folder[c.path(rest)] = what
	}
	return &c
}

// holdings is what a store holds, and that its bytes are right: by the ID of each
// reference what belongs to it, or of what was adopted by its origin the digest.
func holdings(t *testing.T, dir string) map[string]string {
	t.Helper()
	ctx := context.Background()
	f, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, NoCreate: true})
	require.NoError(t, err)
	held := map[string]string{}
	for e, err := range f.List(ctx, engine.Query{}) {
		require.NoError(t, err)
		got, err := f.Retrieve(ctx, &e.Reference)
		require.NoError(t, err)
		data, err := base64.StdEncoding.DecodeString(got.Data)
		require.NoError(t, err)
		digest := sumOf(data)
		if origin, adopted := e.Metadata.Labels[engine.AdoptedFrom]; adopted {
			require.NotContains(t, held, origin, "adopted once")
			held[origin] = digest
			continue
		}
		meta, err := json.Marshal(e.Metadata)
		require.NoError(t, err)
		held[e.Reference.ID] = fmt.Sprint(digest, e.ExpiresAt, string(meta))
	}
	require.NoError(t, f.Close())
	return held
}

func sumOf(data []byte) string { return storage.Digest(sha256.Sum256(data)).String() }

func filesBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, name)
		}
		return err
	}))
	return names
}

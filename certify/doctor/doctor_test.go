package doctor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/certify/doctor"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// mustFill makes a store with so many references and closes it.
func mustFill(t testing.TB, dir string, references int) {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, Sync: engine.SyncNone, Organization: storage.OrganizationByRun})
	require.NoError(t, err)
	for i := range references {
		_, err := f.StoreReader(context.Background(), strings.NewReader(fmt.Sprint(i)), storage.MediaInfo{}, storage.MediaMetadata{SessionID: fmt.Sprint("s", i)})
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

// mustExamine looks at a directory, and requires that nothing has changed there.
func mustExamine(t testing.TB, dir string) *doctor.Report {
	t.Helper()
	before := names(t, dir)
	r, err := doctor.Examine(context.Background(), dir)
	require.NoError(t, err)
	require.Equal(t, before, names(t, dir), "the doctor leaves no trace")
	for _, f := range r.Findings {
		require.NotEmpty(t, f.What)
		require.NotEmpty(t, f.Severity)
	}
	return r
}

func names(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			all[path] = fmt.Sprint(info.Size(), info.ModTime())
		}
		return err
	})
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return all
}

// found is what a report says on a topic, by severity.
func found(r *doctor.Report, topic string, severity doctor.Severity) string {
	var all []string
	for _, f := range r.Findings {
		if f.Topic == topic && f.Severity == severity {
			all = append(all, f.What)
		}
	}
	return strings.Join(all, "; ")
}

func control(dir, name string) string { return filepath.Join(dir, ".mediabolt", name) }

func TestSoundStore(t *testing.T) {
	dir := t.TempDir()
	mustFill(t, dir, 2000)
	r := mustExamine(t, dir)
	require.True(t, r.Store)
	for _, topic := range []string{"space", "permissions", "clock", "lock", "index", "leftovers"} {
		require.Empty(t, found(r, topic, doctor.Problem), topic)
	}
	for _, topic := range []string{"permissions", "clock", "index", "leftovers"} {
		require.NotEmpty(t, found(r, topic, doctor.Fine), topic)
	}
	require.Equal(t, "by-run", r.Index.Organization)
	require.Positive(t, r.Space.Free)

	// bbolt and the engine say the same.
	db, err := bolt.Open(control(dir, "index.db"), 0, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		require.Equal(t, uint64(tx.ID()), r.Index.Transaction)
		require.Equal(t, uint64(tx.Size()), r.Index.Pages*r.Index.PageSize)
		require.Equal(t, tx.Bucket([]byte("meta")).Get([]byte("format")), binary.BigEndian.AppendUint32(nil, r.Index.Format))
		return nil
	}))
	require.Equal(t, uint64(db.Stats().FreePageN+db.Stats().PendingPageN), r.Index.FreePages)
	require.NoError(t, db.Close())
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir})
	require.NoError(t, err)
	defer f.Close()
	for e, err := range f.List(context.Background(), engine.Query{Order: engine.Newest, Limit: 1}) {
		require.NoError(t, err)
		require.Equal(t, e.AddedAt, r.Index.Newest)
	}
}

func TestNoStore(t *testing.T) {
	dir := t.TempDir()
	r := mustExamine(t, dir)
	require.False(t, r.Store)
	require.Nil(t, r.Index)
	require.NotEmpty(t, found(r, "store", doctor.Note))
	nowhere := filepath.Join(dir, "a", "b")
	r = mustExamine(t, nowhere)
	require.False(t, r.Store)
	require.Contains(t, found(r, "store", doctor.Note), dir)
	require.NoDirExists(t, filepath.Join(dir, "a"))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := doctor.Examine(context.Background(), file)
	require.ErrorContains(t, err, "not a directory")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = doctor.Examine(ctx, dir)
	require.ErrorIs(t, err, context.Canceled)
}

// What is to be run is said with the directory.
func TestAdviceNamesTheCommand(t *testing.T) {
	advice := func(dir, topic string) string {
		var all []string
		for _, f := range mustExamine(t, dir).Findings {
			if f.Topic == topic {
				all = append(all, f.Advice)
			}
		}
		return strings.Join(all, "; ")
	}
	dir := t.TempDir()
	mustFill(t, dir, 3)
	require.NoError(t, os.MkdirAll(control(dir, "quarantine/batch"), 0o700))
	require.NoError(t, os.WriteFile(control(dir, "quarantine/batch/file"), nil, 0o600))
	require.Contains(t, advice(dir, "leftovers"), "'mediabolt quarantine ls --store "+dir+"'")
	require.NoError(t, os.Remove(control(dir, "index.sums")))
	require.Contains(t, advice(dir, "index"), "'mediabolt stats --store "+dir+"'")
	require.NoError(t, os.Remove(control(dir, "index.db")))
	require.Contains(t, advice(dir, "index"), "'mediabolt rebuild --store "+dir+"'")
	odd := filepath.Join(t.TempDir(), "it's")
	require.NoError(t, os.Mkdir(odd, 0o700))
	require.Contains(t, advice(odd, "store"), `mediabolt put --store '`+filepath.Dir(odd)+`/it'\''s' FILE`)
}

func TestLockedStore(t *testing.T) {
	dir := t.TempDir()
	mustFill(t, dir, 1)
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir})
	require.NoError(t, err)
	defer f.Close()
	r, err := doctor.Examine(context.Background(), dir)
	require.NoError(t, err)
	if runtime.GOOS != "linux" {
		t.Skip("who has a lock is told on Linux alone")
	}
	require.True(t, r.Lock.Held)
	require.Len(t, r.Lock.Holders, 1)
	require.Equal(t, os.Getpid(), r.Lock.Holders[0].PID)
	require.Contains(t, r.Lock.Holders[0].Command, filepath.Base(os.Args[0]))
	require.Nil(t, r.Index)
	require.Contains(t, found(r, "lock", doctor.Note), fmt.Sprint(os.Getpid()))
	require.Empty(t, found(r, "index", doctor.Problem))
}

func TestWhatIsWrong(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		do       func(dir string) error
		topic    string
		severity doctor.Severity
		want     string
	}{
		"index gone":     {func(dir string) error { return os.Remove(control(dir, "index.db")) }, "index", doctor.Problem, "gone although"},
		"index empty":    {func(dir string) error { return os.Truncate(control(dir, "index.db"), 0) }, "index", doctor.Problem, "meta page"},
		"index cut":      {func(dir string) error { return os.Truncate(control(dir, "index.db"), 12<<10) }, "index", doctor.Problem, "12288 bytes"},
		"index replaced": {func(dir string) error { return os.WriteFile(control(dir, "index.db"), []byte("what"), 0o600) }, "index", doctor.Problem, "damaged"},
		"newer format":   {func(dir string) error { return setFormat(dir, 99) }, "index", doctor.Problem, "format 99"},
		"older format":   {func(dir string) error { return setFormat(dir, 1) }, "index", doctor.Note, "format 1"},
		"log gone":       {func(dir string) error { return os.Remove(control(dir, "log.1")) }, "index", doctor.Warning, "log.1"},
		"sums gone":      {func(dir string) error { return os.Remove(control(dir, "index.sums")) }, "index", doctor.Note, "index.sums"},
		"reserve gone":   {func(dir string) error { return os.Remove(control(dir, "reserve")) }, "space", doctor.Warning, "reserve"},
		"clock":          {func(dir string) error { return os.Chtimes(control(dir, "log.0"), hour, hour) }, "clock", doctor.Warning, "log.0"},
		"staged": {func(dir string) error { return os.WriteFile(control(dir, "staging/3/x.part"), []byte("half"), 0o600) },
			"leftovers", doctor.Note, "1 file of 4 B staged"},
		"quarantine": {func(dir string) error {
			return os.MkdirAll(control(dir, "quarantine/a"), 0o700)
		}, "leftovers", doctor.Fine, "nothing is staged"},
		"set aside": {func(dir string) error {
			if err := os.MkdirAll(control(dir, "quarantine/a"), 0o700); err != nil {
				return err
			}
			return os.WriteFile(control(dir, "quarantine/a/b"), []byte("bytes"), 0o600)
		}, "leftovers", doctor.Note, "1 file of 5 B in quarantine"},
		"temporary": {func(dir string) error { return os.WriteFile(control(dir, "index.db.x.tmp"), nil, 0o600) }, "leftovers", doctor.Note, "index.db.x.tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustFill(t, dir, 10)
			require.NoError(t, c.do(dir))
			r := mustExamine(t, dir)
			require.Contains(t, found(r, c.topic, c.severity), c.want, "%+v", r.Findings)
			if c.severity == doctor.Problem {
				require.False(t, r.OK)
			}
		})
	}
}

func setFormat(dir string, version uint32) error {
	db, err := bolt.Open(control(dir, "index.db"), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, version))
	})
}

// Whatever becomes of the index, the doctor comes to an end, and says nothing wrong of
// the rest.
func TestAnyDamageOfTheIndex(t *testing.T) {
	dir := t.TempDir()
	mustFill(t, dir, 500)
	path := control(dir, "index.db")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	examine := func() {
		t.Helper()
		r, err := doctor.Examine(context.Background(), dir)
		require.NoError(t, err)
		require.Empty(t, found(r, "lock", doctor.Problem))
		require.True(t, r.Index != nil || found(r, "index", doctor.Problem) != "", "%+v", r.Findings)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	for i := range 600 {
		at := i * 7919 % len(whole)
		if i%3 == 0 {
			at = i * 31 % (16 << 10) // in the first pages
		}
		_, err := file.WriteAt([]byte{whole[at] ^ 1<<(i%8)}, int64(at))
		require.NoError(t, err)
		examine()
		_, err = file.WriteAt(whole[at:at+1], int64(at))
		require.NoError(t, err)
	}
	for size := len(whole) - 1; size > 0; size = size * 3 / 4 {
		require.NoError(t, file.Truncate(int64(size)))
		examine()
	}
}

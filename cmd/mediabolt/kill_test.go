package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// killing is a form of TestKilledCommands.
type killing struct {
	references int           // of the store, about
	time       time.Duration // at most, but that each command has one trial
}

// killings are the forms by MEDIABOLT_PROOF.
var killings = map[string]killing{
	"":      {references: 150, time: 5 * time.Second},
	"short": {references: 400, time: 30 * time.Second},
	"long":  {references: 1500, time: 3 * time.Minute},
}

// killable is a command that is killed: what it is run with, in a directory with what
// newSettings makes, and what must be there once it has come to its end.
type killable struct {
	name string
	// args, with what the command needs prepared.
	args func(t *testing.T, s *settings) []string
	// result is the store that it makes or changes, and want what that must hold.
	result string
	want   func(s *settings) map[string]string
	// open says that the result is whole at any moment, once there is one.
	open bool
	// also checks more.
	also func(t *testing.T, s *settings)
}

// killables are the commands of maintenance.
var killables = []killable{
	{name: "rebuild", result: "store", want: whole, args: func(t *testing.T, s *settings) []string {
		if s.r.IntN(3) != 0 { // else the index is as good as it was
			for _, name := range []string{"index.db", "log.0", "log.1"} {
				require.NoError(t, os.Remove(s.path("store", ".mediabolt", name)))
			}
		}
		return []string{"rebuild", "--store", s.path("store")}
	}},
	{name: "backup", result: "saved", want: whole, args: func(_ *testing.T, s *settings) []string {
		args := []string{"backup", "--store", s.path("store"), s.path("saved")}
		if s.r.IntN(2) == 0 {
			args = append(args, "--copy")
		}
		return args
	}},
	{name: "restore", result: "restored", want: func(s *settings) map[string]string { return s.saved }, args: func(_ *testing.T, s *settings) []string {
		args := []string{"restore", s.path("saved"), s.path("restored"), "--ledger", s.path("store")}
		if s.r.IntN(2) == 0 {
			args = append(args, "--link")
		}
		return args
	}},
	{name: "import", result: "imported", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"import", s.path("media.tar"), "--store", s.path("imported")}
	}},
	{name: "reorganize", result: "store", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		modes := []storage.OrganizationMode{storage.OrganizationFlat, storage.OrganizationByConversation, storage.OrganizationByRun}
		return []string{"reorganize", "--to", string(modes[s.r.IntN(len(modes))]), "--store", s.path("store")}
	}},
	{name: "adopt", result: "adopted", want: func(s *settings) map[string]string { return s.folder }, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"adopt", s.path("folder"), "--store", s.path("adopted")}
	}},
	{name: "adopt --in-place", result: "adopted", want: func(s *settings) map[string]string { return s.folder }, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"adopt", "--in-place", s.path("folder"), "--store", s.path("adopted")}
	}, also: func(t *testing.T, s *settings) {
		require.Empty(t, filesBelow(t, s.path("folder")), "what is in the store was removed")
	}},
	{name: "compact", result: "store", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"compact", "--store", s.path("store")}
	}},
	{name: "repair --apply", result: "store", want: whole, args: func(t *testing.T, s *settings) []string {
		s.damage(t)
		return []string{"repair", "--apply", "--max-share", "100", "--store", s.path("store")}
	}, also: func(t *testing.T, s *settings) {
		out, code := mediabolt(t, "quarantine", "ls", "--json", "--store", s.path("store"))
		require.Equal(t, exitOK, code, out)
		for _, orphan := range s.orphans {
			require.Contains(t, out, orphan, "the quarantine has every orphan")
		}
	}},
}

func whole(s *settings) map[string]string { return s.whole }

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

// copy is the settings in another directory.
func (s *settings) copy(t *testing.T, dir string) *settings {
	t.Helper()
	require.NoError(t, os.CopyFS(dir, os.DirFS(s.dir)))
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

// mediabolt runs a command to its end.
func mediabolt(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.Command("mediabolt", args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// killAfter runs a command and kills it after a time; over says that it had come to
// its end before.
func killAfter(t *testing.T, after time.Duration, args []string) (over bool) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("mediabolt", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // gone is as good
	_ = cmd.Wait()                                                    // its end is looked at
	timer.Stop()
	if !cmd.ProcessState.Exited() {
		return false
	}
	require.Equal(t, exitOK, cmd.ProcessState.ExitCode(), "%s: %s", strings.Join(args, " "), &out)
	return true
}

// mostKills is how often a command is killed in a row at most.
const mostKills = 3

// took is how long a command takes that nobody kills.
func took(t *testing.T, args ...string) time.Duration {
	t.Helper()
	begun := time.Now()
	out, code := mediabolt(t, args...)
	require.Equal(t, exitOK, code, out)
	return time.Since(begun)
}

// trial kills a command a few times, each time before a moment between the start of a
// process and the command's end, and then runs it to its end.
func (k *killable) trial(t *testing.T, s *settings, start, takes time.Duration, kills int) (killed int) {
	t.Helper()
	args := k.args(t, s)
	over := false
	for range kills {
		if over = killAfter(t, start+time.Duration(s.r.Int64N(int64(max(takes-start, 1)))), args); over {
			break
		}
		killed++
		if _, err := os.Stat(s.path(k.result, ".mediabolt", "index.db")); err == nil && k.open && s.r.IntN(2) == 0 {
			out, code := mediabolt(t, "verify", "--store", s.path(k.result))
			require.Equal(t, exitOK, code, "after a kill: %s", out)
		}
	}
	if !over {
		out, code := mediabolt(t, args...)
		if !k.isDone(code, killed, out) {
			require.Equal(t, exitOK, code, out)
		}
	}
	k.check(t, s)
	return killed
}

// isDone says that a restore was killed between its end and that of the process: it
// makes nothing of what is a store already.
func (k *killable) isDone(code, killed int, out string) bool {
	return k.name == "restore" && killed > 0 && code == exitFailure && strings.Contains(out, "not empty")
}

// check requires that the command has done what it was to do.
func (k *killable) check(t *testing.T, s *settings) {
	t.Helper()
	for _, name := range []string{k.result, "store"} {
		out, code := mediabolt(t, "verify", "--deep", "--store", s.path(name))
		require.Equal(t, exitOK, code, out)
	}
	want := k.want(s)
	got := holdings(t, s.path(k.result))
	for id, what := range want {
		require.Equal(t, what, got[id], "%s", id)
	}
	require.Len(t, got, len(want))
	require.Equal(t, s.whole, holdings(t, s.path("store")), "the store that it was about is as it was")
	for _, name := range filesBelow(t, s.path(k.result, ".mediabolt")) {
		rest, err := filepath.Rel(s.path(k.result, ".mediabolt"), name)
		require.NoError(t, err)
		first, _, _ := strings.Cut(filepath.ToSlash(rest), "/")
		require.False(t, strings.HasSuffix(rest, ".tmp") || strings.HasSuffix(rest, ".next") || first == "staging" ||
			strings.HasPrefix(first, "rebu"), "%s is left over", rest)
	}
	if k.also != nil {
		k.also(t, s)
	}
}

// Commands of maintenance are killed at random moments, some several times in a row.
// Then the same command comes to its end, the verification finds nothing, and every
// reference is there.
func TestKilledCommands(t *testing.T) {
	form, known := killings[os.Getenv("MEDIABOLT_PROOF")]
	require.True(t, known, "MEDIABOLT_PROOF is short, long or not set")
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("MEDIABOLT_PROOF_SEED"), strconv.FormatUint(rand.Uint64(), 10)), 10, 64)
	require.NoError(t, err)
	t.Logf("MEDIABOLT_PROOF_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	end := time.Now().Add(form.time)
	all := newSettings(t, r, form.references)
	scratch := t.TempDir()
	in := func(do func(s *settings)) {
		dir := filepath.Join(scratch, "trial")
		do(all.copy(t, dir))
		require.NoError(t, os.RemoveAll(dir))
	}
	start := took(t, "version")
	takes, trials, kills := map[string]time.Duration{}, map[string]int{}, map[string]int{}
	for round := 0; round == 0 || time.Now().Before(end); round++ {
		for i := range killables {
			k := &killables[i]
			if round > 0 && time.Now().After(end) {
				break
			}
			if round == 0 {
				in(func(s *settings) { takes[k.name] = took(t, k.args(t, s)...) })
			}
			in(func(s *settings) { kills[k.name] += k.trial(t, s, start, takes[k.name], 1+r.IntN(mostKills)) })
			trials[k.name]++
		}
	}
	t.Logf("kills %v in trials %v; a process starts in %s, commands take %s", kills, trials, start, takes)
	if os.Getenv("MEDIABOLT_PROOF") == "long" {
		for i := range killables {
			require.NotZero(t, kills[killables[i].name], killables[i].name)
		}
	}
}

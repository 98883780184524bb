package main

import (
	"bytes"
	"cmp"
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

	"github.com/mediabolt/mediabolt/storage"
)

// killing is a form of TestKilledCommands.
type killing struct {
	references int           // of the store, about
	time       time.Duration // at most, but that each command has one trial
}

// killings are the forms by MEDIABOLT_PROOF.
var killings = map[string]killing{
	"":      {references: 120, time: 4 * time.Second},
	"short": {references: 250, time: 20 * time.Second},
	"long":  {references: 400, time: 3 * time.Minute},
}

// killable is a command that is killed: what it is run with, in a directory with what
// newSettings makes, and what must be there once it has come to its end.
type killable struct {
	name string
	// uses is what of the settings it is about.
	uses []string
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
	{name: "rebuild", uses: []string{"store"}, result: "store", want: whole, args: func(t *testing.T, s *settings) []string {
		if s.r.IntN(3) != 0 { // else the index is as good as it was
			for _, name := range []string{"index.db", "log.0", "log.1"} {
				require.NoError(t, os.Remove(s.path("store", ".mediabolt", name)))
			}
		}
		return []string{"rebuild", "--store", s.path("store")}
	}},
	{name: "backup", uses: []string{"store", "saved"}, result: "saved", want: whole, args: func(_ *testing.T, s *settings) []string {
		args := []string{"backup", "--store", s.path("store"), s.path("saved")}
		if s.r.IntN(2) == 0 {
			args = append(args, "--copy")
		}
		return args
	}},
	{name: "restore", uses: []string{"store", "saved"}, result: "restored", want: func(s *settings) map[string]string { return s.saved }, args: func(_ *testing.T, s *settings) []string {
		args := []string{"restore", s.path("saved"), s.path("restored"), "--ledger", s.path("store")}
		if s.r.IntN(2) == 0 {
			args = append(args, "--link")
		}
		return args
	}},
	{name: "import", uses: []string{"media.tar"}, result: "imported", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"import", s.path("media.tar"), "--store", s.path("imported")}
	}},
	{name: "reorganize", uses: []string{"store"}, result: "store", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		modes := []storage.OrganizationMode{storage.OrganizationFlat, storage.OrganizationByConversation, storage.OrganizationByRun}
		return []string{"reorganize", "--to", string(modes[s.r.IntN(len(modes))]), "--store", s.path("store")}
	}},
	{name: "adopt", uses: []string{"folder"}, result: "adopted", want: func(s *settings) map[string]string { return s.folder }, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"adopt", s.path("folder"), "--store", s.path("adopted")}
	}},
	{name: "adopt --in-place", uses: []string{"folder"}, result: "adopted", want: func(s *settings) map[string]string { return s.folder }, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"adopt", "--in-place", s.path("folder"), "--store", s.path("adopted")}
	}, also: func(t *testing.T, s *settings) {
		require.Empty(t, filesBelow(t, s.path("folder")), "what is in the store was removed")
	}},
	{name: "compact", uses: []string{"store"}, result: "store", want: whole, open: true, args: func(_ *testing.T, s *settings) []string {
		return []string{"compact", "--store", s.path("store")}
	}},
	{name: "repair --apply", uses: []string{"store"}, result: "store", want: whole, args: func(t *testing.T, s *settings) []string {
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
// its end before, with success or as isDone says.
func killAfter(t *testing.T, after time.Duration, args []string, isDone func(code int, out string) bool) (over bool) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("mediabolt", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // gone is as good
	_ = cmd.Wait()                                                    // its end is looked at
	if late := !timer.Stop(); late && !cmd.ProcessState.Success() {
		return false
	}
	if code := cmd.ProcessState.ExitCode(); !isDone(code, out.String()) {
		require.Equal(t, exitOK, code, "%s: %s", strings.Join(args, " "), &out)
	}
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
		after := start + time.Duration(s.r.Int64N(int64(max(takes-start, 1))))
		isDone := func(code int, out string) bool { return k.isDone(code, killed, out) }
		if over = killAfter(t, after, args, isDone); over {
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
	out, code := mediabolt(t, "verify", "--deep", "--store", s.path(k.result))
	require.Equal(t, exitOK, code, out)
	want := k.want(s)
	got := holdings(t, s.path(k.result))
	for id, what := range want {
		require.Equal(t, what, got[id], "%s", id)
	}
	require.Len(t, got, len(want))
	if k.result != "store" && slices.Contains(k.uses, "store") {
		require.Equal(t, s.whole, holdings(t, s.path("store")), "the store that it was about is as it was")
	}
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
	in := func(k *killable, do func(s *settings)) {
		dir := filepath.Join(scratch, "trial")
		do(all.copy(t, dir, k.uses))
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
				in(k, func(s *settings) { takes[k.name] = took(t, k.args(t, s)...) })
			}
			in(k, func(s *settings) { kills[k.name] += k.trial(t, s, start, takes[k.name], 1+r.IntN(mostKills)) })
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

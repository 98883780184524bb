package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// long is a command that takes long, in a directory of its own with a store in "store".
type long struct {
	make func(t *testing.T)        // what is there before
	args []string                  // of the command
	stop func(*testing.T, *paused) // sends the signal at a known point; nil: once told lines are written
	told int                       // bytes of progress after which it is held; 0: a line or two
	says string                    // what standard error says of going on
	then func(*testing.T)          // what is true of what is left; nil: that verify finds no damage
	goOn []string                  // nil: args
	mute bool                      // it has too little to do in the end to tell how long that takes
}

// filled is a store of so many blobs, of which the command has something to do for each.
func filled(blobs int) func(*testing.T) {
	return func(t *testing.T) { fillStore(t, blobs, storage.MediaMetadata{SessionID: "s", ConversationID: "c"}) }
}

func fillStore(t *testing.T, blobs int, m storage.MediaMetadata) {
	withStore(t, func(f *engine.FileStore) {
		for i := range blobs {
			data := fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000))
			_, err := f.StoreReader(t.Context(), strings.NewReader(data), storage.MediaInfo{}, m)
			require.NoError(t, err)
		}
	})
}

// withStore opens the store of the working directory.
func withStore(t *testing.T, do func(*engine.FileStore)) {
	f, err := engine.Open(t.Context(), engine.FileStoreConfig{BaseDir: "store", Sync: engine.SyncNone, EnableDeduplication: true})
	require.NoError(t, err)
	do(f)
	require.NoError(t, f.Close())
}

var longCommands = map[string]long{
	"verify": {
		make: filled(40), args: []string{"verify", "--rate", "10KB"}, stop: atLine(`verifying: [23]\d kB of`),
		says: `interrupted after \d+ blobs?.*'mediabolt verify --resume \S+ --rate 10KB' goes on`, goOn: []string{"verify"},
	},
	"repair, looking": {
		make: lackingSidecars(40), args: []string{"repair", "--apply", "--max-share", "100", "--rate", "10KB"}, stop: atLine(`verifying: \d+ kB of`),
		says: "nothing was changed", goOn: []string{"repair", "--apply", "--max-share", "100"}, then: func(*testing.T) {},
	},
	"repair": {
		make: lackingSidecars(40), args: []string{"repair", "--apply", "--max-share", "100"}, stop: atLine(`repairing: [1-9]`),
		says: "interrupted after [1-9][0-9]? repairs?.*'mediabolt repair --apply' goes on", then: func(*testing.T) {},
	},
	"rebuild": {
		make: func(t *testing.T) {
			filled(200)(t)
			require.NoError(t, os.Remove("store/.mediabolt/index.db"))
		}, args: []string{"rebuild"}, says: "interrupted; nothing was changed.*run it again", then: func(*testing.T) {},
	},
	"backup": {
		make: filled(60), args: []string{"backup", "copy"}, told: 500, says: "run the backup again: it goes on where it stopped",
	},
	"restore": {
		make: func(t *testing.T) {
			filled(60)(t)
			withStore(t, func(f *engine.FileStore) {
				_, err := f.Backup(t.Context(), "saved", engine.BackupOptions{})
				require.NoError(t, err)
			})
			require.NoError(t, os.RemoveAll("store"))
		},
		args: []string{"restore", "saved", "store"}, told: 500, says: "run the restore again: it goes on where it stopped",
		then: func(t *testing.T) {
			_, _, code := runMediabolt(t, "verify")
			require.NotZero(t, code, "a restore that is not whole is no store")
		},
	},
	"export to a file": {
		make: filled(60), args: []string{"export", "-o", "out.tar"}, told: 300, says: "interrupted after .* no file was written",
		then: func(t *testing.T) {
			found, err := filepath.Glob("*.[pt]ar*")
			require.NoError(t, err)
			require.Empty(t, found)
			requireSound(t)
		},
	},
	"export to a pipe that nobody reads": {
		make: filled(200), args: []string{"export"}, stop: onceFull, says: "no whole archive", goOn: []string{"export", "-o", "out.tar"},
	},
	"import": {
		make: archived(60), args: []string{"import"}, stop: halfWay, says: "interrupted after .*what was imported stays; import the same archive again",
		goOn: []string{"import", "all.tar"},
	},
	"compact": {make: filled(60), args: []string{"compact"}, says: "the index is as it was.*run it again"},
	"reorganize": {
		make: filled(300), args: []string{"reorganize", "--to", "flat"}, says: "interrupted after (64|128) blobs.*the same command goes on",
	},
	"adopt": {
		make: func(t *testing.T) {
			filled(1)(t)
			require.NoError(t, os.Mkdir("old", 0o700))
			for i := range 200 {
				require.NoError(t, os.WriteFile(fmt.Sprint("old/", i), fmt.Append(nil, i), 0o600))
			}
		}, args: []string{"adopt", "old"}, says: "what was taken is safe; the same command goes on",
	},
	"erase": {
		make: filled(60), args: []string{"erase", "--session", "s", "--yes"}, says: "interrupted before .*it was decided: the next command goes on with it",
		goOn: []string{"erase", "--resume"}, mute: true, then: func(*testing.T) {},
	},
	"expire": {
		make: func(t *testing.T) {
			fillStore(t, 60, storage.MediaMetadata{Policy: "2001-01-01T00:00:00Z"})
		},
		args: []string{"expire", "--rate", "20"}, stop: atLine(`expiring: [1-9]`),
		says: "what was reported is done, the rest is not: run it again", goOn: []string{"expire"},
	},
	"put": {
		make: func(t *testing.T) {
			for i := range 3 {
				require.NoError(t, os.WriteFile(fmt.Sprint("file", i), fmt.Append(nil, i), 0o600))
			}
		},
		args: []string{"put", "file0", "-", "file1", "file2"}, stop: oncePrinted,
		says: "interrupted after 1 of 4 files.*what was printed is done, the rest is not", goOn: []string{"put", "file1", "file2"}, mute: true,
	},
	"quarantine purge": {
		make: func(t *testing.T) {
			filled(3)(t)
			for i := range 12 {
				setAside(t, fmt.Sprintf("store/s/c/a7f3f7-06h0aeyy8hrzvc6fkc554h%03d0.png", i))
			}
		}, args: []string{"quarantine", "purge", "--older-than", "0s"}, says: "interrupted after [1-9][0-9]? files?.*run it again for the rest",
	},
}

func lackingSidecars(n int) func(*testing.T) {
	return func(t *testing.T) {
		filled(n)(t)
		found, err := filepath.Glob("store/s/c/*.meta")
		require.NoError(t, err)
		require.Len(t, found, n)
		for _, name := range found {
			require.NoError(t, os.Remove(name))
		}
	}
}

// archived is an archive of a store, and another store that has nothing of it.
func archived(n int) func(*testing.T) {
	return func(t *testing.T) {
		filled(n)(t)
		withStore(t, func(f *engine.FileStore) {
			out, err := os.Create("all.tar")
			require.NoError(t, err)
			_, err = f.Export(t.Context(), out, engine.Query{})
			require.NoError(t, errors.Join(err, out.Close()))
		})
		require.NoError(t, os.RemoveAll("store"))
		filled(0)(t)
	}
}

// setAside has a repair move a file into the quarantine.
func setAside(t *testing.T, name string) {
	require.NoError(t, os.WriteFile(name, []byte("orphan"), 0o600))
	withStore(t, func(f *engine.FileStore) {
		plan, err := f.PlanRepair(t.Context(), engine.RepairOptions{MaxShare: 100})
		require.NoError(t, err)
		for r, err := range f.Repair(t.Context(), plan) {
			require.NoError(t, err)
			require.True(t, r.Done, "%+v", r)
		}
	})
}

// paused is a command under way whose standard error is a pipe that has room for some
// bytes: it is held once it has written these, until the rest is read.
type paused struct {
	*exec.Cmd
	in     io.WriteCloser
	out    *os.File // the end that is read
	stderr *os.File // the end that is read
	filler int      // bytes in stderr that are none of the command's
}

func start(t *testing.T, room int, args []string) *paused {
	t.Helper()
	p := &paused{Cmd: exec.Command("mediabolt", append([]string{"--store", "store", "--progress", "1ns"}, args...)...)}
	var err error
	p.in, err = p.StdinPipe()
	require.NoError(t, err)
	var out, stderr *os.File
	p.out, out, err = os.Pipe()
	require.NoError(t, err)
	p.stderr, stderr, err = os.Pipe()
	require.NoError(t, err)
	size, err := unix.FcntlInt(stderr.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	require.NoError(t, err)
	p.filler = size - room
	_, err = stderr.Write(bytes.Repeat([]byte("\n"), p.filler))
	require.NoError(t, err)
	p.Stdout, p.Stderr = out, stderr
	require.NoError(t, p.Start())
	require.NoError(t, errors.Join(out.Close(), stderr.Close()))
	t.Cleanup(func() {
		_ = p.Process.Kill()
		require.NoError(t, errors.Join(p.out.Close(), p.stderr.Close()))
	})
	return p
}

// interrupt sends the signal and gives the process time to take it, while it is held.
func (p *paused) interrupt(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Process.Signal(os.Interrupt))
	time.Sleep(100 * time.Millisecond)
}

// end lets the command go to its end, and returns what it wrote.
func (p *paused) end(t *testing.T) (stdout, stderr string, code int) {
	t.Helper()
	told := make(chan string)
	go func() {
		all, err := io.ReadAll(p.stderr)
		told <- fmt.Sprint(strings.TrimLeft(string(all), "\n"), or(err, ""))
	}()
	printed, err := io.ReadAll(p.out)
	require.NoError(t, err)
	stderr = <-told
	if p.ProcessState == nil {
		if err := p.Wait(); err != nil {
			require.ErrorAs(t, err, new(*exec.ExitError))
		}
	}
	return string(printed), stderr, p.ProcessState.ExitCode()
}

func or(err error, text string) string {
	if err != nil {
		return err.Error()
	}
	return text
}

// untilFull waits until a pipe has so many bytes.
func untilFull(t *testing.T, pipe *os.File, bytes int) {
	t.Helper()
	require.Eventually(t, func() bool {
		n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
		return err == nil && n >= bytes
	}, time.Minute, time.Millisecond)
}

// atLine interrupts a command that is slow once it tells of a progress.
func atLine(pattern string) func(*testing.T, *paused) {
	return func(t *testing.T, p *paused) {
		want, lines := regexp.MustCompile(pattern), bufio.NewReader(p.stderr)
		for {
			line, err := lines.ReadString('\n')
			require.NoError(t, err, "before %q", pattern)
			if want.MatchString(line) {
				p.interrupt(t)
				return
			}
		}
	}
}

func onceFull(t *testing.T, p *paused) {
	const pipe = 64 << 10
	untilFull(t, p.out, pipe)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	// It ends although nobody reads.
	ended := make(chan error)
	go func() { ended <- p.Wait() }()
	select {
	case err := <-ended:
		require.ErrorAs(t, err, new(*exec.ExitError))
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

func halfWay(t *testing.T, p *paused) {
	all, err := os.ReadFile("all.tar")
	require.NoError(t, err)
	fed := make(chan error)
	go func() {
		_, err := p.in.Write(all[:len(all)/2])
		fed <- err
	}()
	const aFewLines = 500
	untilFull(t, p.stderr, aFewLines)
	p.interrupt(t)
	t.Cleanup(func() { <-fed }) // with or without an error: the reader may be gone
}

func oncePrinted(t *testing.T, p *paused) {
	untilFull(t, p.out, len("an ID"))
	p.interrupt(t)
}

// runMediabolt runs a command in the store of the working directory.
func runMediabolt(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, "mediabolt", append([]string{"--store", "store"}, args...)...)
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return out.String(), told.String(), cmd.ProcessState.ExitCode()
}

func requireSound(t *testing.T) {
	t.Helper()
	_, stderr, code := runMediabolt(t, "verify")
	require.Zero(t, code, stderr)
}

// Ctrl-C ends every command that takes long with code 1 and a word on how to go on; the
// store is sound, and the command does the rest. Where there is no terminal progress is
// said in lines, in JSON too, with a rate and how long it will take.
func TestLongCommands(t *testing.T) {
	for name, c := range longCommands {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			c.make(t)
			const aLine = 100
			room := max(c.told, aLine)
			if c.stop != nil {
				room = os.Getpagesize()
			}
			p := start(t, room, c.args)
			if c.stop != nil {
				c.stop(t, p)
			} else {
				untilFull(t, p.stderr, p.filler+max(c.told-aLine, 1))
				p.interrupt(t)
			}
			_, stderr, code := p.end(t)
			require.Equal(t, exitFailure, code, stderr)
			lines := strings.Join(strings.Fields(stderr), " ")
			require.Regexp(t, c.says, lines)
			require.Contains(t, lines, "mediabolt: interrupted")
			if c.then == nil {
				requireSound(t)
			} else {
				c.then(t)
			}
			args := c.goOn
			if args == nil {
				args = c.args
			}
			stdout, stderr, code := runMediabolt(t, append([]string{"--json", "--progress", "1ns"}, args...)...)
			require.Zero(t, code, stderr)
			requireJSON(t, stdout)
			requireProgress(t, requireJSON(t, stderr), c.mute)
			requireSound(t)
		})
	}
}

// requireJSON wants nothing but objects of JSON, one a line.
func requireJSON(t *testing.T, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &object), line)
		lines = append(lines, object)
	}
	return lines
}

// requireProgress wants a line that tells of a total, a rate, and of a time that is left.
func requireProgress(t *testing.T, lines []map[string]any, mute bool) {
	t.Helper()
	if mute {
		return
	}
	require.True(t, slices.ContainsFunc(lines, func(line map[string]any) bool {
		number := func(field string) float64 { n, _ := line[field].(float64); return n }
		_, timed := line["seconds_left"].(float64)
		return number("total") > 0 && number("done") > 0 && number("per_second") > 0 && timed
	}), "%v", lines)
}

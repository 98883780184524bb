package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mediabolt": main, "liar": liar})
}

// liar is a mediabolt whose victims acknowledge what they did not store.
func liar() {
	if os.Args[1] != victimCommand {
		main()
		return
	}
	fmt.Println("store lie.1 5\nstored lie.1 a7f3f7-06h0aeyy8hrzvc6fkc554h3rs0")
	main()
}

// TestScripts runs testdata/script. Beside what testscript brings, scripts have
//
//	$MEDIA                        the sample media
//	liar ARG…                     is a mediabolt that breaks promises in 'certify'
//	exits N PROGRAM ARG…          runs a program, which must exit with N
//	json FILE LINE FIELD VALUE    a field, such as labels.file_name, of a line of JSON; ! for another value or none
//	field VAR FILE LINE FIELD     puts a field into a variable
//	lines FILE N                  FILE has N lines, all of them JSON objects
//	lock DIR, unlock DIR          opens a store in the test's own process, closes it
//	flip FILE                     changes one bit in the middle of FILE
//	zero FILE                     overwrites the first 16 KiB of FILE with zeros
//	doctor ARG…                   runs 'mediabolt doctor', which may find no problem but with the filesystem
//	stopadopt DIR SOURCE          makes SOURCE, adopts it into DIR, and interrupts that
//	interrupt DIR                 stores an endless stream into DIR and interrupts that
func TestScripts(t *testing.T) {
	media, err := filepath.Abs(filepath.Join("..", "..", "testdata", "media"))
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MEDIA", media)
			env.Values["open"] = map[string]*engine.FileStore{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "json": checkField, "field": setField, "lines": countLines,
			"lock": lock, "unlock": unlock, "flip": flip, "zero": zero, "interrupt": interrupt, "doctor": runDoctor, "stopadopt": stopAdopt,
		},
	})
}

func wantArgs(ts *testscript.TestScript, neg bool, args []string, n int) {
	if neg || len(args) < n {
		ts.Fatalf("wrong use: see TestScripts")
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if got := exitCode(ts, err); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func exitCode(ts *testscript.TestScript, err error) int {
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		return failed.ExitCode()
	}
	ts.Check(err)
	return 0
}

// lookUp is a field of a line of JSON as text; there is false where it is not
// there.
func lookUp(ts *testscript.TestScript, file, line, field string) (value string, there bool) {
	n, err := strconv.Atoi(line)
	ts.Check(err)
	all := strings.Split(strings.TrimSuffix(ts.ReadFile(file), "\n"), "\n")
	if n < 1 || n > len(all) {
		ts.Fatalf("%s has %d lines, no line %d", file, len(all), n)
	}
	var at any
	d := json.NewDecoder(strings.NewReader(all[n-1]))
	d.UseNumber()
	ts.Check(d.Decode(&at))
	for _, name := range strings.Split(field, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return "", false
		}
		if at, ok = object[name]; !ok {
			return "", false
		}
	}
	return fmt.Sprint(at), true
}

func checkField(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, false, args, 4)
	got, there := lookUp(ts, args[0], args[1], args[2])
	if same := there && got == args[3]; same == neg {
		ts.Fatalf("%s line %s: %s is %q (there: %v), want %q, negated: %v", args[0], args[1], args[2], got, there, args[3], neg)
	}
}

func setField(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 4)
	value, there := lookUp(ts, args[1], args[2], args[3])
	if !there {
		ts.Fatalf("%s line %s has no field %s", args[1], args[2], args[3])
	}
	ts.Setenv(args[0], value)
}

func countLines(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		n++
		if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
			ts.Fatalf("%s line %d is no JSON object: %v", args[0], n, err)
		}
	}
	if strconv.Itoa(n) != args[1] {
		ts.Fatalf("%s has %d lines, want %s", args[0], n, args[1])
	}
}

func openStores(ts *testscript.TestScript) map[string]*engine.FileStore {
	return ts.Value("open").(map[string]*engine.FileStore)
}

func lock(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	store, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: ts.MkAbs(args[0]), NoCreate: true})
	ts.Check(err)
	openStores(ts)[args[0]] = store
	ts.Defer(func() { ts.Check(store.Close()) })
}

func unlock(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	ts.Check(openStores(ts)[args[0]].Close())
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

func zero(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	clear(data[:16<<10])
	ts.Check(os.WriteFile(path, data, 0o600))
}

// stopAdopt interrupts an adoption once it has printed the first of many files.
func stopAdopt(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 2)
	dir, source := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	const files = 3000
	ts.Check(os.Mkdir(source, 0o700))
	for i := range files {
		ts.Check(os.WriteFile(filepath.Join(source, fmt.Sprint(i)), fmt.Append(nil, i), 0o600))
	}
	cmd := exec.Command("mediabolt", "--store", dir, "adopt", "--json", source)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewScanner(out)
	printed := 0
	for lines.Scan() {
		if printed++; printed == 1 {
			ts.Check(cmd.Process.Signal(os.Interrupt))
		}
	}
	ts.Check(lines.Err())
	if code := exitCode(ts, cmd.Wait()); code != exitFailure || printed >= files || !strings.Contains(stderr.String(), "the same command goes on") {
		ts.Fatalf("exit code %d after %d files: %s", code, printed, &stderr)
	}
}

// runDoctor is for directories of tests, which may be in memory.
func runDoctor(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 0)
	err := ts.Exec("mediabolt", append([]string{"doctor"}, args...)...)
	code := exitCode(ts, err)
	if code != exitOK && code != exitDamage {
		ts.Fatalf("exit code %d", code)
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if strings.Contains(line, "PROBLEM") && !strings.HasPrefix(line, "  filesystem ") {
			ts.Fatalf("a problem: %s", line)
		}
	}
}

// interrupt waits until the stream is partly on disk, then sends the signal
// that Ctrl-C does.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	wantArgs(ts, neg, args, 1)
	dir := ts.MkAbs(args[0])
	cmd := exec.Command("mediabolt", "--store", dir, "put", "-")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	_, err = in.Write(bytes.Repeat([]byte("endless "), 1<<18))
	ts.Check(err)
	parts := filepath.Join(dir, ".mediabolt", "staging", "*", "*.part")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if found, err := filepath.Glob(parts); err != nil || len(found) > 0 {
			ts.Check(err)
			break
		}
		if time.Now().After(deadline) {
			ts.Check(cmd.Process.Kill())
			ts.Fatalf("nothing came to be staged in %s", parts)
		}
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if code := exitCode(ts, cmd.Wait()); code != exitFailure {
		ts.Fatalf("interrupted: exit code %d, want %d: %s", code, exitFailure, &stderr)
	}
	if got := stderr.String(); !strings.HasSuffix(got, "mediabolt: interrupted\n") {
		ts.Fatalf("interrupted: standard error is %q", got)
	}
	if left, err := filepath.Glob(parts); err != nil || len(left) > 0 {
		ts.Fatalf("left behind: %v %v", left, err)
	}
}

package certify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/fxamacker/cbor/v2"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/certify"
)

// victimVariable makes a run of this test binary a victim; its value is the
// name of one of lies, or honest.
const (
	victimVariable = "MEDIABOLT_TEST_VICTIM"
	honest         = "honest"
)

func TestMain(m *testing.M) {
	how := os.Getenv(victimVariable)
	if how == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	in, out := io.Reader(os.Stdin), io.Writer(os.Stdout)
	if lie, ok := lies[how]; ok {
		out = &liar{out: out, lie: lie.tell, dir: os.Getenv(dirVariable)}
	}
	if d, ok := disobedience[how]; ok {
		orders, err := io.ReadAll(in)
		if err != nil {
			panic(err) // there is no test without
		}
		in = bytes.NewReader(d.order.ReplaceAll(orders, []byte(d.instead)))
	}
	if err := certify.Victim(ctx, in, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// victim makes victims of one kind.
func victim(how, dir string) func() *exec.Cmd {
	return func() *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			panic(err) // there is no test without
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), victimVariable+"="+how, dirVariable+"="+dir)
		return cmd
	}
}

// dirVariable tells a liar where the store is.
const dirVariable = "MEDIABOLT_TEST_DIR"

// liar stands between a victim and whoever hears it.
type liar struct {
	out   io.Writer
	dir   string
	lie   func(l *liar, words []string) string
	count int // of notes
	// swapped is an index that is open, and so locked, until the victim ends.
	swapped *bolt.DB
}

// Write hands on a note, or what is made of it.
func (l *liar) Write(line []byte) (int, error) {
	l.count++
	if _, err := io.WriteString(l.out, l.lie(l, strings.Fields(string(line)))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// note is words as a line.
func note(words ...string) string { return strings.Join(words, " ") + "\n" }

// lies are what a broken store, seen from outside, would look like.
var lies = map[string]struct {
	// tell is what is said in place of a note.
	tell func(l *liar, words []string) string
	want []certify.ViolationKind // one of them
}{
	"acknowledges what it did not store": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			return note(words...) + note("store", "lie.1", "5") + note("stored", "lie.1", "a7f3f7-06h0aeyy8hrzvc6fkc554h3rs0")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationLost}},
	"acknowledges what it did not delete": {func(l *liar, words []string) string {
		if words[0] == "stored" && strings.HasSuffix(words[1], "5") {
			return note(words...) + note("delete", "lie"+words[1], words[2]) + note("deleted", "lie"+words[1])
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationResurrected}},
	"stores what was refused": {func(l *liar, words []string) string {
		if words[0] == "stored" {
			return note("refused", words[1])
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationUnknown}},
	"stores other bytes": {func(l *liar, words []string) string {
		if words[0] == "store" {
			return note("store", words[1], "7")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationBytes}},
	"stores other metadata": {func(l *liar, words []string) string {
		if words[0] == "store" || words[0] == "stored" {
			words[1] += ".5"
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationMetadata, certify.ViolationUnknown}}, // unknown if it was in flight
	"leaves something in staging": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(os.WriteFile(filepath.Join(l.dir, ".mediabolt", "staging", "0", "left"), nil, 0o600))
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationStaging}},
	"does not close": {func(l *liar, words []string) string {
		if words[0] == "closed" {
			return ""
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationStall}},
	"returns from Close before its calls do": {func(l *liar, words []string) string {
		if words[0] == "closed" {
			return note("store", "lie.1", "5") + note("closed")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationCall}},
	"leaves an orphan": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(os.WriteFile(filepath.Join(l.dir, "a7f3f7-06h0aeyy8hrzvc6fkc554h3rs0.png"), nil, 0o600))
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationOrphan}},
	"loses files": {func(l *liar, words []string) string {
		if words[0] == "stored" {
			l.harm(filepath.WalkDir(l.dir, func(name string, e os.DirEntry, err error) error {
				if e != nil && e.Name() == ".mediabolt" {
					return filepath.SkipDir
				}
				if err == nil && strings.HasSuffix(name, ".png") {
					_ = os.Remove(name) // it may be gone by now
				}
				return nil
			}))
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationBytes, certify.ViolationCall}}, // the victim may be the first to read
	"damages its index": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(os.Truncate(filepath.Join(l.dir, ".mediabolt", "index.db"), 100))
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationOpen, certify.ViolationCall}},
	"lets a second process in": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(l.swapIndex(nil)) // the lock is on the file that was there
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationLock}},
	"counts references wrong": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(l.swapIndex(oneMore)) // and keeps its lock
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationRefcount}},
	"acknowledges a hold that it does not put into force": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			return note(words...) + note("hold", "lie.1", noDossier, "audit") + note("held", "lie.1")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationHold}},
	"acknowledges a release that it does not make durable": {func(l *liar, words []string) string {
		if words[0] == "hold" {
			return note(words...) + note("held", words[1]) + note("release", "lie"+words[1], words[2], words[3]) + note("released", "lie"+words[1])
		}
		if words[0] == "held" {
			return ""
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationHold}},
	"erases in part": {func(l *liar, words []string) string {
		if words[0] == "stored" {
			return note(words...) + note("erase", "lie"+words[1], "-", words[2], "a7f3f7-06h0aeyy8hrzvc6fkc554h3rs0")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationErasure}},
	"does not erase": {func(l *liar, words []string) string {
		if words[0] == "stored" && strings.HasSuffix(words[1], "5") {
			return note(words...) + note("erase", "lie"+words[1], "-", words[2]) + note("erased", "lie"+words[1])
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationResurrected}},
	"leaves a trace of what it has erased": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(os.MkdirAll(filepath.Join(l.dir, noDossier), 0o700))
			return note(words...) + note("erase", "lie.1", noDossier) + note("erased", "lie.1")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationErasure}},
	"stores what a limit refuses": {func(l *liar, words []string) string {
		if words[0] == "stored" {
			return note("limited", words[1])
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationUnknown}},
	"shares across scopes": {honestly, []certify.ViolationKind{certify.ViolationScope}},
	"shares with nobody":   {honestly, []certify.ViolationKind{certify.ViolationScope}},
	"counts usage wrong": {func(l *liar, words []string) string {
		if words[0] == "ready" {
			l.harm(l.swapIndex(oneByteMore)) // and keeps its lock
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationUsage}},
	"panics": {func(l *liar, words []string) string {
		if l.count > 50 {
			panic("on purpose")
		}
		return note(words...)
	}, []certify.ViolationKind{certify.ViolationCall}},
}

// noDossier is the name of a dossier that no crew has.
const noDossier = "dossier-9999-000001"

// honestly is for victims that lie about nothing but do as they like.
func honestly(_ *liar, words []string) string { return note(words...) }

// disobedience is what some victims do instead of what they are ordered.
var disobedience = map[string]struct {
	order   *regexp.Regexp
	instead string
}{
	"shares across scopes": {regexp.MustCompile(`"scope":"[a-z-]*"`), `"scope":"global"`},
	"shares with nobody":   {regexp.MustCompile(`"dedup":true`), `"dedup":false`},
}

// swapIndex puts a copy of the index in its place. Where change is not nil it
// changes the copy, which then is locked.
func (l *liar) swapIndex(change func(*bolt.Tx) error) error {
	name := filepath.Join(l.dir, ".mediabolt", "index.db")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	swapped := name + ".swapped"
	if err := os.WriteFile(swapped, data, 0o600); err != nil || change == nil {
		return errors.Join(err, os.Rename(swapped, name))
	}
	if l.swapped, err = bolt.Open(swapped, 0o600, nil); err != nil {
		return err
	}
	// The store takes the pages of an index without sums as they are.
	return errors.Join(l.swapped.Update(change), os.Rename(swapped, name), os.Remove(filepath.Join(filepath.Dir(name), "index.sums")))
}

// Keys of a blob row's refcount, and of a usage row's bytes.
const (
	rowRefs    = 7
	usageBytes = 2
)

// oneMore makes every refcount in an index one higher.
func oneMore(tx *bolt.Tx) error { return higher(tx, "blobs", rowRefs) }

// oneByteMore makes every usage in an index one byte more.
func oneByteMore(tx *bolt.Tx) error { return higher(tx, "usage", usageBytes) }

// higher makes a number in every row of a bucket one higher.
func higher(tx *bolt.Tx, bucket string, field uint64) error {
	b := tx.Bucket([]byte(bucket))
	rows := map[string][]byte{}
	err := b.ForEach(func(key, row []byte) error {
		fields := map[uint64]any{}
		if err := cbor.Unmarshal(row[1:], &fields); err != nil {
			return err
		}
		n, _ := fields[field].(uint64) // zero is left out
		fields[field] = n + 1
		body, err := cbor.Marshal(fields)
		rows[string(key)] = append([]byte{row[0]}, body...)
		return err
	})
	for key, row := range rows {
		err = errors.Join(err, b.Put([]byte(key), row))
	}
	return err
}

// harm ends the victim when what it was to do to its store went wrong: then
// nothing is shown.
func (l *liar) harm(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "cannot lie:", err) // complaints fail the test
		os.Exit(2)
	}
}

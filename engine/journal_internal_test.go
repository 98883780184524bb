package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/storage"
)

// note is a record of the tests.
type note struct {
	N    int    `json:"n"`
	Text string `json:"text"`
}

const notesFile = "notes"

// someNotes have what JSON escapes, and bytes that begin lines.
var someNotes = []note{{1, "one"}, {2, "<&> \u2028 \n{\"v\":1"}, {3, ""}}

func notesIn(t testing.TB, dir string) *journal[note] {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return &journal[note]{root: root, name: notesFile, noSync: true, mode: 0o600, remedy: "ask somebody"}
}

// readNotes opens the journal in a directory, and reads it.
func readNotes(t testing.TB, dir string) (notes []note, err error) {
	t.Helper()
	j := notesIn(t, dir)
	if err := j.open(); err != nil {
		return nil, err
	}
	require.NoError(t, j.unfit)
	err = j.read(func(n *note) { notes = append(notes, *n) })
	return notes, err
}

func notesBytes(t testing.TB, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, notesFile))
	require.NoError(t, err)
	return data
}

// writtenNotes is the file of a journal after each append of one note.
func writtenNotes(t testing.TB, notes ...note) (files [][]byte) {
	t.Helper()
	dir := t.TempDir()
	j := notesIn(t, dir)
	require.NoError(t, j.open())
	for i := range notes {
		require.NoError(t, j.append(notes[i]))
		files = append(files, notesBytes(t, dir))
	}
	return files
}

func TestJournalKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	j := notesIn(t, dir)
	require.NoError(t, j.open())
	require.NoError(t, j.append())
	require.NoFileExists(t, filepath.Join(dir, notesFile), "nothing is written before there is a record")
	require.NoError(t, j.append(someNotes[0]))
	require.NoError(t, j.append(someNotes[1:]...))
	got, err := readNotes(t, dir)
	require.NoError(t, err)
	require.Equal(t, someNotes, got)

	require.NoError(t, j.replace(someNotes[2]))
	require.NoError(t, j.append(someNotes[0]))
	got, err = readNotes(t, dir)
	require.NoError(t, err)
	require.Equal(t, []note{someNotes[2], someNotes[0]}, got)
	require.NoError(t, j.replace())
	got, err = readNotes(t, dir)
	require.NoError(t, err)
	require.Empty(t, got)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// What an append has written when it is cut short, at whatever byte, was never
// acknowledged: it is cut away, and the next append takes its place.
func TestJournalTornAppend(t *testing.T) {
	files := writtenNotes(t, someNotes...)
	before, after := files[1], files[2]
	dir := t.TempDir()
	for size := len(before); size <= len(after); size++ {
		for name, torn := range map[string][]byte{
			"cut":   append(bytes.Clone(before), after[len(before):size]...),
			"holes": append(bytes.Clone(before), make([]byte, size-len(before))...),
		} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, notesFile), torn, 0o600))
			got, err := readNotes(t, dir)
			require.NoError(t, err, "%s at %d", name, size)
			require.Equal(t, someNotes[:2], got)
			require.Equal(t, before, notesBytes(t, dir))
			j := notesIn(t, dir)
			require.NoError(t, j.open())
			require.NoError(t, j.append(someNotes[2]))
			require.Equal(t, after, notesBytes(t, dir))
		}
	}
}

// A line that an append of this process could not finish is overwritten by the
// next one, which may be shorter.
func TestJournalOverwritesWhatFailed(t *testing.T) {
	dir := t.TempDir()
	j := notesIn(t, dir)
	require.NoError(t, j.open())
	require.NoError(t, j.append(someNotes[0]))
	f, err := os.OpenFile(filepath.Join(dir, notesFile), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"v":1,"crc32c":"this line is longer than the next","record":` + string(bytes.Repeat([]byte("1"), 200)))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, j.append(someNotes[1]))
	require.Equal(t, writtenNotes(t, someNotes[:2]...)[1], notesBytes(t, dir))
}

// What was acknowledged and is not there is named, wherever the file ends.
func TestJournalCutShort(t *testing.T) {
	files := writtenNotes(t, someNotes...)
	whole := files[len(files)-1]
	dir := t.TempDir()
	for size := range len(whole) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, notesFile), whole[:size], 0o600))
		_, err := readNotes(t, dir)
		require.ErrorIs(t, err, storage.ErrCorrupted, "cut to %d", size)
		require.ErrorContains(t, err, filepath.Join(dir, notesFile))
		require.ErrorContains(t, err, "ask somebody")
		require.Equal(t, whole[:size], notesBytes(t, dir), "damage is left as it is")
	}
}

// Every bit of the file counts, and the lines without damage are read.
func TestJournalFlippedBits(t *testing.T) {
	files := writtenNotes(t, someNotes...)
	whole := files[len(files)-1]
	dir := t.TempDir()
	for at := range whole {
		for bit := range 8 {
			flipped := bytes.Clone(whole)
			flipped[at] ^= 1 << bit
			require.NoError(t, os.WriteFile(filepath.Join(dir, notesFile), flipped, 0o600))
			got, err := readNotes(t, dir)
			require.ErrorIs(t, err, storage.ErrCorrupted, "bit %d of byte %d", bit, at)
			line := 1 + bytes.Count(whole[:at], []byte("\n"))
			require.ErrorContains(t, err, fmt.Sprintf("%s: line %d: ", filepath.Join(dir, notesFile), line))
			require.ErrorContains(t, err, "ask somebody")
			want := 2
			switch {
			case line == 1:
				want = 0
			case whole[at] == '\n' && line <= len(someNotes):
				want = 1 // two lines are one
			}
			require.Len(t, got, want, "bit %d of byte %d", bit, at)
		}
	}
}

func TestJournalOfAnotherVersion(t *testing.T) {
	whole := writtenNotes(t, someNotes[0])[0]
	dir := t.TempDir()
	later := formatLine(2, []byte(`{"what":"is not known"}`))
	head, err := formatHead(int64(len(whole) + len(later)))
	require.NoError(t, err)
	laterHead := append(bytes.Repeat([]byte(" "), journalHead-1), '\n')
	copy(laterHead, bytes.TrimSuffix(formatLine(2, []byte(`{"end":512}`)), []byte("\n")))
	for name, data := range map[string][]byte{
		"line": append(append(head, whole[journalHead:]...), later...),
		"head": laterHead,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, notesFile), data, 0o600))
		_, err := readNotes(t, dir)
		require.ErrorIs(t, err, storage.ErrVersion, name)
		require.NotErrorIs(t, err, storage.ErrCorrupted, name)
		require.ErrorContains(t, err, filepath.Join(dir, notesFile))
		require.ErrorContains(t, err, "version 2, this program knows 1: use a newer mediabolt")
	}
}

// A crash before the rename leaves a file that opening removes.
func TestJournalRemovesWhatAReplacementLeft(t *testing.T) {
	for _, name := range []string{"with a file", "without"} {
		dir := t.TempDir()
		j := notesIn(t, dir)
		require.NoError(t, j.open())
		if name == "with a file" {
			require.NoError(t, j.append(someNotes...))
		}
		require.NoError(t, j.writeTemp([]byte("half a")))
		_, err := readNotes(t, dir)
		require.NoError(t, err)
		require.NoFileExists(t, filepath.Join(dir, notesFile+".tmp"))
	}
}

// A journal that vanished, or is no file, is not taken for an empty one.
func TestJournalThatIsGone(t *testing.T) {
	dir := t.TempDir()
	j := notesIn(t, dir)
	require.NoError(t, j.open())
	require.NoError(t, j.append(someNotes...))
	require.NoError(t, os.Remove(filepath.Join(dir, notesFile)))
	require.ErrorIs(t, j.read(func(*note) {}), storage.ErrCorrupted)
	require.Error(t, j.append(someNotes[0]))
	require.NoFileExists(t, filepath.Join(dir, notesFile))
	require.NoError(t, os.Mkdir(filepath.Join(dir, notesFile), 0o700))
	_, err := readNotes(t, dir)
	require.ErrorIs(t, err, storage.ErrIO)
}

// Whatever is in the file, what is read is what was written.
func FuzzJournal(f *testing.F) {
	for _, data := range writtenNotes(f, someNotes...) {
		f.Add(data)
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, notesFile), data, 0o600))
		got, err := readNotes(t, dir)
		if err != nil {
			return
		}
		lines, err := formatLines(got)
		require.NoError(t, err)
		head, err := formatHead(int64(journalHead + len(lines)))
		require.NoError(t, err)
		require.Equal(t, append(head, lines...), notesBytes(t, dir))
	})
}

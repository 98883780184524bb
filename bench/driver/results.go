package driver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/mediabolt/mediabolt/bench/cell"
)

// Line is one line of a results file: a cell, of what code and where it was
// measured.
type Line struct {
	Profile string `json:"profile"`
	Origin
	Spent float64 `json:"spent"` // seconds, with filling the store and closing it
	cell.Result
}

// Origin is what results must share to be compared.
type Origin struct {
	Revision string  `json:"revision"`
	Machine  Machine `json:"machine"`
}

// String is a line for people.
func (o Origin) String() string { return fmt.Sprintf("revision %s on %s", o.Revision, o.Machine) }

// Origins are those of lines, in the order in which they come.
func Origins(lines []Line) (all []Origin) {
	for i := range lines {
		if !slices.Contains(all, lines[i].Origin) {
			all = append(all, lines[i].Origin)
		}
	}
	return all
}

func (l *Line) key() string { return fmt.Sprint(l.Profile, l.Cell.Series, l.Cell.Name()) }

// Read reads a results file. A last line that was cut short is none; whole is
// where it begins.
func Read(name string) (lines []Line, whole int64, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, 0, err
	}
	for text := range bytes.Lines(data) {
		if !bytes.HasSuffix(text, []byte("\n")) {
			break
		}
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, 0, fmt.Errorf("results %s: line %d: %w", name, len(lines)+1, err)
		}
		lines = append(lines, l)
		whole += int64(len(text))
	}
	return lines, whole, nil
}

// results is a results file that grows by a line per cell.
type results struct {
	file *os.File
	have map[string]bool
}

// openResults opens a file that has results of one origin, unless they may be
// mixed.
func openResults(name string, origin Origin, mix bool) (*results, error) {
	lines, whole, err := Read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, other := range Origins(lines) {
		if other != origin && !mix {
			return nil, fmt.Errorf("results %s: are of %s, and this is %s: remove them, or allow them to be mixed", name, other, origin)
		}
	}
	r := &results{have: map[string]bool{}}
	for i := range lines {
		r.have[lines[i].key()] = true
	}
	if r.file, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	if err = r.file.Truncate(whole); err == nil {
		_, err = r.file.Seek(whole, 0)
	}
	if err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

func (r *results) append(l *Line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := r.file.Write(append(text, '\n')); err != nil {
		return err
	}
	return r.file.Sync()
}

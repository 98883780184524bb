package driver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mediabolt/mediabolt/bench/cell"
)

// Line is one line of a results file: a cell, and where it was measured.
type Line struct {
	Profile string  `json:"profile"`
	Machine Machine `json:"machine"`
	cell.Result
}

func (l *Line) key() string { return fmt.Sprint(l.Profile, l.Machine, l.Cell.Series, l.Cell.Name()) }

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

func openResults(name string) (*results, error) {
	lines, whole, err := Read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
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

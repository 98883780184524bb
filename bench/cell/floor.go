package cell

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/mediabolt/mediabolt/bench"
)

func openFloor(c *Cell, dir string) (*subject, error) {
	s := &subject{close: func() error { return nil }}
	file := filepath.Join(dir, "floor")
	switch c.Op {
	case Create:
		disk, err := bench.NewDiskFloor(dir)
		if err != nil {
			return nil, err
		}
		s.start = func(w int) func() error { return disk.Writer(w, c.Size) }
	case SHA256:
		s.start = func(int) func() error { return bench.HashFloor(c.Size) }
	case ReadFile, ReadBase64:
		if err := os.WriteFile(file, bench.NewContent(c.Size).Next(), 0o600); err != nil {
			return nil, err
		}
		s.start = func(int) func() error { return bench.ReadFloor(file, c.Op == ReadBase64) }
	default:
		return nil, errors.New("no such floor: " + c.Op)
	}
	return s, nil
}

package disk

import (
	"compress/gzip"
	"encoding/gob"
	"errors"
	"io"
)

// saved is a device in a file: gob (encoding/gob), compressed with gzip.
type saved struct {
	Kind string
	Size int64
	Base image
	Log  []event
}

func (d *device) save(w io.Writer, kind string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	z := gzip.NewWriter(w)
	return errors.Join(gob.NewEncoder(z).Encode(&saved{kind, d.size, d.base, d.log}), z.Close())
}

// load reads a device as it was saved: its events can be cut, but it does not
// hold what came of them.
func load(r io.Reader) (d *device, kind string, err error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, "", err
	}
	var s saved
	if err := gob.NewDecoder(z).Decode(&s); err != nil {
		return nil, "", err
	}
	d = newDevice(s.Size, s.Base)
	d.log = s.Log
	return d, s.Kind, z.Close()
}

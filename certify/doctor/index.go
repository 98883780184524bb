package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Index is what the file of the index says of itself. Commits of the last seconds
// before a process was killed are in the log, and not in here.
type Index struct {
	Format       uint32    `json:"format"` // version
	Organization string    `json:"organization"`
	Bytes        int64     `json:"bytes"` // of the file
	PageSize     uint64    `json:"page_size"`
	Pages        uint64    `json:"pages"`
	FreePages    uint64    `json:"free_pages"`
	Transaction  uint64    `json:"transaction"`
	Newest       time.Time `json:"newest,omitzero"` // of the newest reference; absent: there is none
}

// index reads the file of the index, unless it is in use.
func (r *Report) index(context.Context) {
	const topic = "index"
	f, err := os.Open(r.control(indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return // files has told
	} else if err != nil {
		r.add(topic, Problem, "check owner and mode", "%v", err)
		return
	}
	defer f.Close()
	if r.Lock.Held {
		r.add(topic, Note, "look again when nobody has the store open", "the index is in use, so it was not read")
		return
	}
	x, err := readIndex(f)
	switch {
	case errors.Is(err, errInUse):
		r.add(topic, Note, "look again when nobody has the store open", "the index was written to while it was read")
		return
	case errors.Is(err, errDamaged):
		r.add(topic, Problem, "'mediabolt rebuild --store DIR' makes it anew from the files and their sidecars, and keeps the damaged one; change nothing before",
			"%s: %v", indexName, err)
		return
	case err != nil:
		r.add(topic, Problem, "", "%s cannot be read: %v", indexName, err)
		return
	}
	r.Index = x
	r.judgeIndex()
}

// Above wastefulShare of free pages, in a file of more than wastefulBytes, it is worth
// while to make it smaller.
const (
	wastefulShare = 0.5
	wastefulBytes = 64 << 20
)

func (r *Report) judgeIndex() {
	const topic = "index"
	x := r.Index
	share := float64(x.FreePages) / float64(max(x.Pages, 1))
	what := fmt.Sprintf("format %d, %s, %s, %.0f %% of it free", x.Format, x.Organization, humanize.IBytes(uint64(x.Bytes)), 100*share)
	if share > wastefulShare && x.Bytes > wastefulBytes {
		r.add(topic, Note, "'mediabolt compact --store DIR' gives the free part back to the disk", "%s", what)
	} else {
		r.add(topic, Fine, "", "%s", what)
	}
	const known = engine.IndexFormat
	switch {
	case x.Format > known:
		r.add(topic, Problem, "use the mediabolt that wrote it, or a newer one", "format %d of the index is newer than %d, which this program knows", x.Format, known)
	case x.Format < known:
		r.add(topic, Note, "make a copy of the directory first, or a backup by the program that wrote it: the next command brings it up to that format", "format %d of the index is older than %d, which this program makes", x.Format, known)
	}
}

// errInUse says that the file changed while it was read.
var errInUse = errors.New("in use")

// readIndex reads an index that nobody has open. Should somebody open it meanwhile,
// what looks like damage is none.
func readIndex(f *os.File) (*Index, error) {
	b, err := openBolt(f)
	if err != nil {
		return nil, err
	}
	x, err := b.index(f)
	if again, e := openBolt(f); e != nil || again.transaction != b.transaction {
		return nil, errInUse
	}
	return x, err
}

func (b *boltFile) index(f *os.File) (*Index, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x := &Index{Bytes: info.Size(), PageSize: b.pageSize, Pages: b.pages, Transaction: b.transaction}
	if want := b.pages * b.pageSize; uint64(x.Bytes) < want {
		return nil, damaged("%d bytes, its meta page says %d", x.Bytes, want)
	}
	if x.FreePages, err = b.freePages(); err != nil {
		return nil, err
	}
	meta, err := b.bucket("meta")
	if err != nil {
		return nil, err
	}
	format, err := b.get(meta, "format")
	if err != nil {
		return nil, err
	}
	if len(format) != 4 {
		return nil, damaged("format %x", format)
	}
	x.Format = binary.BigEndian.Uint32(format)
	mode, err := b.get(meta, "organization")
	if err != nil {
		return nil, err
	}
	x.Organization = string(mode)
	refs, err := b.bucket("refs")
	if err != nil {
		return nil, err
	}
	key, err := b.last(refs)
	if err == nil && len(key) == len(storage.UUID{}) {
		x.Newest = storage.UUID(key).Time()
	}
	return x, err
}

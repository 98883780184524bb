package boltindex

import (
	"os"

	"github.com/mediabolt/mediabolt/storage"
)

// Sizes of the log, for tests.
const (
	LogBlock   = logBlock
	SegmentMax = segmentMax
)

// Flush moves the rows of a segment to bbolt now.
func (x *Index) Flush() error { return x.flush() }

// Applied is the number of the last log record whose rows bbolt has.
func (x *Index) Applied() (uint64, error) { return x.applied() }

// LogTo makes the log write to other files, which Close then closes.
func (x *Index) LogTo(files [2]*os.File) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	err := x.changes.close()
	for i, f := range files {
		x.changes.segments[i].file = f
	}
	return err
}

// MemberKey is the key of a reference in the list of an ID.
func MemberKey(id string, ref storage.UUID) []byte { return membership{bucketBySession, id}.key(ref) }

// AtCopy calls fn when a compaction is about to copy rows.
func (x *Index) AtCopy(fn func()) {
	x.passed = func(step compactStep) {
		if step == stepBegun {
			fn()
		}
	}
}

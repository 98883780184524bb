// Package cell measures one combination of subject, operation, blob size,
// writers, duplicates, preloaded references and index, in a process of its own:
// so memory and counters of the kernel are those of this cell alone, and a
// killed process can be one.
package cell

import (
	"fmt"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/bench"
)

// What is measured.
const (
	Floor  = "floor"  // what disk and cores do without a store
	Index  = "index"  // an index alone
	Engine = "engine" // a whole store
)

// Operations of index and engine.
const (
	Store     = "store"        // through StoreReader; Cell.Dup per cent of the contents are there already
	StoreText = "store-base64" // the same through Store, in base64
	Retrieve  = "retrieve"     // whole, in base64; of an index, the rows
	Open      = "open"         // and read
	Delete    = "delete"       // of references that were stored just before
	DeleteOld = "delete-old"   // of preloaded references, all over the index
	Mixed     = "mixed"        // nine reads to a store
	List      = "list"         // the first references of a session
	Opening   = "opening"      // of the store: after Close, and after kill -9
	Verify    = "verify"       // once, of a whole store, with the bytes of all blobs
	Backup    = "backup"       // once, of a whole store, with hard links
	Rebuild   = "rebuild"      // once, of the index of a whole store, from the sidecars
)

// Operations of floors.
const (
	Create     = "create"          // create, write, fdatasync, rename
	SHA256     = "sha256"          //
	ReadFile   = "readfile"        //
	ReadBase64 = "readfile-base64" // of the standard library
)

// Cell is what one process measures.
type Cell struct {
	Series  string        `json:"series"` // of the plan that it is in
	Scope   string        `json:"scope"`
	Op      string        `json:"op"`
	Size    int           `json:"size"` // of a blob, in bytes
	Writers int           `json:"writers"`
	Dup     int           `json:"dup"`             // per cent
	Refs    int           `json:"refs"`            // preloaded
	Index   string        `json:"index,omitempty"` // name of the strategy; none for floors
	Time    time.Duration `json:"time"`
}

// Name identifies a cell as a Go benchmark would be called.
func (c *Cell) Name() string {
	name := fmt.Sprintf("scope=%s/op=%s/size=%dk/writers=%d/dup=%d/refs=%d", c.Scope, c.Op, c.Size>>10, c.Writers, c.Dup, c.Refs)
	if c.Index != "" {
		name += "/index=" + c.Index
	}
	return name
}

// The blobs that are there to be read, deleted or stored again: at most so many
// bytes and so many of them.
const (
	sampled  = 128 << 20
	maxFiles = 1000
)

// Large is from how many references on every cell of an index is measured on the
// same rows, whatever its scope, operation and size, so that what takes minutes to
// fill can be filled once. The blobs in it have largeSize bytes.
const (
	Large     = 1_000_000
	largeSize = 100 << 10
)

// Rows is what a store is filled with before the cell is measured.
func (c *Cell) Rows() bench.Rows {
	if c.Refs >= Large && !c.isJSON() {
		return bench.Rows{Count: c.Refs, Size: largeSize, Files: maxFiles}
	}
	r := bench.Rows{Count: c.Refs, Size: c.Size}
	there := c.Dup > 0 || c.Op == Retrieve || c.Op == Open || c.Op == DeleteOld || c.Op == Mixed || c.Op == List
	if there && c.Scope == Engine {
		r.Files = max(4, min(maxFiles, sampled/c.Size))
	} else if there {
		r.Count = max(r.Count, 1000)
	}
	r.Count = max(r.Count, r.Files)
	return r
}

// LeavesFor says whether the store that c was measured on, which takes long to
// fill, is as good for next as a new one: c has changed few thousandths of it.
// An index alone owes the tree files that a store would miss. An engine deletes
// only references with files, an index alone uses only those without.
func (c *Cell) LeavesFor(next *Cell) bool {
	switch {
	case c.isPass() || next.isPass(): // which leaves the store as it was
		return c.isPass() && next.isPass() && c.Refs == next.Refs && c.Size == next.Size
	case c.Refs < Large || c.Index != next.Index || c.Rows() != next.Rows():
		return false
	case c.Scope == Index:
		return next.Scope == Index && c.Op != DeleteOld
	}
	return c.Op != DeleteOld || next.Scope == Index || next.Op == Opening
}

// Latency is in nanoseconds.
type Latency struct {
	P50  int64 `json:"p50"`
	P95  int64 `json:"p95"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p999"`
	Max  int64 `json:"max"`
}

// Result is what came of a cell. What could not be measured is zero.
type Result struct {
	Cell      Cell    `json:"cell"`
	Ops       int64   `json:"ops"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
	Latency   Latency `json:"latency_ns"`
	// AllocsPerOp includes what making the content or the row takes.
	AllocsPerOp float64 `json:"allocs_per_op"`
	HeapPeak    int64   `json:"heap_peak"` // objects, garbage included, in bytes
	HeapLive    int64   `json:"heap_live"` // the most that a collection found alive
	RSSPeak     int64   `json:"rss_peak"`  // with the pages of mapped files
	// Bytes written from the beginning of the measurement until the store was
	// closed and the filesystem synced: by the process, as /proc/self/io has it,
	// and by the whole device, journal and other programs included.
	ProcessWritten int64 `json:"process_written"`
	DeviceWritten  int64 `json:"device_written"`
	Stored         int64 `json:"stored"` // bytes of new blobs
	// IndexDisk is the room that the files of the index take once it is closed.
	IndexDisk  int64 `json:"index_disk"`
	References int64 `json:"references"` // at that time
	Commits    int64 `json:"commits"`
	// CommitsBy says who counted: the index, or the calls of its Sync hook, which
	// only additions of new blobs cause.
	CommitsBy string `json:"commits_by,omitempty"`
	// OpenClean and OpenKilled are the median times to open, in nanoseconds.
	OpenClean  int64 `json:"open_clean,omitempty"`
	OpenKilled int64 `json:"open_killed,omitempty"`
}

// Amplification is bytes written by the device per byte stored, or 0.
func (r *Result) Amplification() float64 {
	if r.Stored == 0 || r.Cell.Scope == Index {
		return 0
	}
	return float64(r.DeviceWritten) / float64(r.Stored)
}

// BytesPerRef is what the index takes on disk per reference, or 0.
func (r *Result) BytesPerRef() float64 {
	if r.References == 0 {
		return 0
	}
	return float64(r.IndexDisk) / float64(r.References)
}

// isJSON says whether the index of a cell is one JSON file.
func (c *Cell) isJSON() bool { return strings.HasPrefix(c.Index, "json-") }

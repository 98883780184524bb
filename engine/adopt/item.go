package adopt

// State is what became of a file.
type State string

const (
	Taken State = "taken" // it is in the store
	Ready State = "ready" // it would be taken, says a dry run
	Known State = "known" // an earlier run took it
	Left  State = "left"  // it stays where it is
)

// Odd is what is odd about a file; its values are stable.
type Odd string

const (
	OddHash       Odd = "wrong_hash"    // the bytes are not those that the index says
	OddSize       Odd = "wrong_size"    // neither is their number
	OddMissing    Odd = "missing_file"  // the index names a file that is not there
	OddUnlisted   Odd = "not_in_index"  // a file that the index does not name
	OddUnreadable Odd = "unreadable"    // a file or directory that cannot be read
	OddOutside    Odd = "outside"       // a path that leads out of the source
	OddSpecial    Odd = "not_a_file"    // a symbolic link, a device, a pipe
	OddEntry      Odd = "bad_entry"     // an entry of the index that contradicts itself
	OddIndex      Odd = "bad_index"     // an index that cannot be read
	OddMetadata   Odd = "bad_metadata"  // a .meta file that cannot be read, or is missing
	OddType       Odd = "wrong_type"    // the bytes look like another type of media
	OddPlace      Odd = "misplaced"     // the directory is that of another ID, or none of the store's
	OddPattern    Odd = "no_match"      // the path does not match the pattern
	OddRefused    Odd = "refused"       // the store cannot keep it, or its metadata
	OddUnused     Odd = "no_references" // the index says that nobody refers to it
	OddChanged    Odd = "changed"       // another content than an earlier run took, or changed while it was read
	OddDeleted    Odd = "deleted"       // an earlier run took it, and its reference was deleted since
	OddKept       Odd = "not_removed"   // taken, and could not be removed from the source
	OddLitter     Odd = "litter"        // of the system's or a program's own; harmless
	OddBookkept   Odd = "bookkeeping"   // the old store's own; harmless
	OddForeign    Odd = "another_store" // a directory that belongs to a store of mediabolt's own
)

// harmless are files that hold no media.
func (o Odd) harmless() bool {
	return o == OddLitter || o == OddBookkept || o == OddUnused || o == OddDeleted
}

// Item is what became of one file, or of one entry of an old index.
type Item struct {
	Path      string `json:"path"` // relative to the source, forward slashes
	State     State  `json:"state"`
	Reference string `json:"reference,omitempty"` // the ID in the store
	Count     int64  `json:"count,omitempty"`     // references that it had there, where the index says
	Size      int64  `json:"size"`                // bytes
	SHA256    string `json:"sha256,omitempty"`    // of what was read
	Odd       Odd    `json:"odd,omitempty"`
	Detail    string `json:"detail,omitempty"`  // what is odd, and what was expected
	Removed   bool   `json:"removed,omitempty"` // from the source
}

// Trouble says whether media was left, or may have been.
func (i *Item) Trouble() bool { return i.State == Left && !i.Odd.harmless() }

// Report counts items.
type Report struct {
	Taken   int   `json:"taken"` // or ready, in a dry run
	Known   int   `json:"known"`
	Left    int   `json:"left"`
	Odd     int   `json:"odd"`     // with something to say, taken or left
	Trouble int   `json:"trouble"` // left although they may be media
	Removed int   `json:"removed"`
	Bytes   int64 `json:"bytes"` // of those taken
}

// Add counts an item.
func (r *Report) Add(i *Item) {
	switch i.State {
	case Taken, Ready:
		r.Taken++
		r.Bytes += i.Size
	case Known:
		r.Known++
	case Left:
		r.Left++
	}
	if i.Odd != "" && !i.Odd.harmless() {
		r.Odd++
	}
	if i.Trouble() {
		r.Trouble++
	}
	if i.Removed {
		r.Removed++
	}
}

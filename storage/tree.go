package storage

import "io"

// File is an open blob.
type File interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// SidecarLine is one line of a sidecar: the addition of Ref, or the deletion of
// the reference Deleted where Ref is nil.
type SidecarLine struct {
	First     bool // the line also tells of the blob itself
	AfterTorn bool // what is there does not end in a newline
	Ref       *RefRow
	Deleted   UUID
	At        int64 // of a line that was read, where it begins in its file, in bytes
}

// Sidecar is what a sidecar says.
type Sidecar struct {
	Blob    BlobRow // without path and refcount; of an empty key where no line tells
	Lines   []SidecarLine
	Torn    bool  // the last line has no newline
	Damaged int   // lines that could not be read
	Cause   error // why the last of them could not
}

// Line is the line that m stands for, or one of a later revision, nil if the sidecar
// has neither.
func (s *Sidecar) Line(m *Mirror) *SidecarLine {
	for i := range s.Lines {
		l := &s.Lines[i]
		if m.Deleted && l.Ref == nil && l.Deleted == m.UUID ||
			!m.Deleted && l.Ref != nil && l.Ref.UUID == m.UUID && l.Ref.Revision >= m.Revision {
			return l
		}
	}
	return nil
}

// Live is the references that the sidecar says are live, by UUID, each as its last
// revision says.
func (s *Sidecar) Live() map[UUID]*RefRow {
	live := make(map[UUID]*RefRow, len(s.Lines))
	for i := range s.Lines {
		ref := s.Lines[i].Ref
		if ref == nil {
			continue
		}
		if other := live[ref.UUID]; other == nil || other.Revision <= ref.Revision {
			live[ref.UUID] = ref
		}
	}
	for i := range s.Lines {
		if s.Lines[i].Ref == nil {
			delete(live, s.Lines[i].Deleted)
		}
	}
	return live
}

// StagedFile is a file in staging. Key is empty when its name is no blob key.
type StagedFile struct {
	Path  string // relative to the base directory
	Key   BlobKey
	Size  int64 // bytes
	Spool bool  // a stream whose key was not known yet
	InUse bool  // by a call under way, or published since the last checkpoint
}

// TreeFile is a file in the tree.
type TreeFile struct {
	Path    string // relative to the base directory
	Ours    bool   // the name is one that a blob or a sidecar has
	Sidecar bool
	Blob    string // path of the blob, of a sidecar as well
	ID      ID     // of the reference that brought the blob
}

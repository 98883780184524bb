package engine

import (
	"path"
	"slices"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/boltindex"
)

// IndexFormat is the version of the index that a store of this program has.
const IndexFormat = boltindex.FormatVersion

// Layout is the names of what a store keeps beside its blobs, in its control directory.
type Layout struct {
	Dir        string // the control directory, in the base directory
	Index      boltindex.Files
	Journals   []string // that a backup has too; each may be missing
	Restored   string   // of a store that was restored; may be missing
	Staging    string   // a directory
	Quarantine string   // a directory, which may be missing
}

// ControlLayout is the one layout that there is.
func ControlLayout() Layout {
	return Layout{
		Dir: blobs.ControlDir, Index: boltindex.FileNames(), Journals: slices.Clone(carried[:]), Restored: restoredFile,
		Staging: path.Base(blobs.StagingDir), Quarantine: path.Base(blobs.QuarantineDir),
	}
}

// Files are the names of all files that a store may have there while nothing is under
// way.
func (l *Layout) Files() []string {
	return slices.Concat([]string{l.Index.Index, l.Index.Sums, l.Index.Reserve, l.Restored}, l.Index.Logs[:], l.Journals)
}

package boltindex

// FormatVersion is the version of the format that this package writes. What is older is
// brought up to it, another is refused.
const FormatVersion uint32 = formatVersion

// Files are the names of what an index consists of, in its directory.
type Files struct {
	Index   string    // bbolt's file
	Sums    string    // of its pages
	Logs    [2]string // commits that it does not have yet
	Reserve string    // room for deletions on a full disk
}

// FileNames are the names that every index has.
func FileNames() Files {
	return Files{Index: fileName, Sums: sumsName, Logs: logNames, Reserve: reserveName}
}

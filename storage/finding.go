package storage

// FindingKind is what a verification found; its values are stable.
type FindingKind string

const (
	FindingMissing     FindingKind = "missing_file"   // a row whose file is not there
	FindingSize        FindingKind = "wrong_size"     // a file of another size than its row says
	FindingChecksum    FindingKind = "wrong_checksum" // bytes that are not those stored
	FindingUnreadable  FindingKind = "unreadable"     // a file that cannot be read
	FindingOrphan      FindingKind = "orphan"         // a blob or sidecar that no row names
	FindingStaging     FindingKind = "staging"        // a leftover in staging
	FindingUnlink      FindingKind = "unlink"         // a deleted blob whose file is still there
	FindingSidecar     FindingKind = "sidecar"        // a sidecar that does not mirror its rows
	FindingRefcount    FindingKind = "refcount"       // a refcount that is not the number of rows
	FindingDangling    FindingKind = "dangling"       // a row that names a row that is not there
	FindingCounter     FindingKind = "counter"        // a total that is not the sum of the rows
	FindingIndex       FindingKind = "index"          // damage inside the index file
	FindingJournal     FindingKind = "journal"        // damage in a journal, such as that of the holds
	FindingForeignFile FindingKind = "foreign_file"   // a file that mediabolt did not make; a notice
)

// Severity of a Finding.
type Severity string

const (
	SeverityDamage Severity = "damage" // a promise is broken
	SeverityNotice Severity = "notice" // worth knowing, harmless
)

// Finding is one thing that a verification found.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Severity Severity    `json:"severity"`
	Path     string      `json:"path,omitempty"`      // relative to the base directory
	Blob     string      `json:"blob,omitempty"`      // BlobKey.String
	Ref      string      `json:"reference,omitempty"` // a short UUID
	Detail   string      `json:"detail"`              // what was found and what was expected
}

// Package boltindex is the transactional index of a store: one bbolt file, with
// a short log before it, that holds a row for every blob and every reference,
// and what the directory tree is still owed. It never touches a blob file.
//
// # Buckets
//
//	meta      "format"       -> format version, big-endian uint32
//	          "store"        -> UUID of the store, 16 bytes
//	          "organization" -> organization mode at the last open
//	          "counters"     -> counters row
//	          "applied"      -> number of the last log record whose rows are
//	                            here, big-endian uint64
//	blobs     blob key       -> blob row
//	refs      UUID           -> reference row
//	by_session, by_conversation, by_run, by_user
//	          hash UUID      -> empty; only for IDs that are set. hash is the
//	                            first 8 bytes of the ID's SHA-256
//	by_digest hash UUID      -> empty; for every reference to bytes of a digest,
//	                            other than the one that the file of the shared
//	                            blob is named after. hash is the first 8 bytes
//	                            of the digest
//	by_expiry time UUID      -> empty; only for references that expire. time is in
//	                            microseconds since 1970, big-endian, its sign
//	                            bit turned over
//	unlinks   path           -> empty; a path that no row has any more, and whose
//	                            files are still to be removed
//	mirrors   storage.Mirror.Key -> blob key; what a sidecar is owed and is not
//	                            known to be durable yet
//	usage     kind hash      -> usage row; what the references of a session ('s') or
//	                            a user ('u') add up to. hash is as in the lists
//
// A blob key is storage.BlobKey's bytes. Two IDs may have their hash in common, and
// then share a list: the reference's row says which is its own. A blob that is
// not shared, as nearly all of a store of new content, costs nothing in by_digest:
// its row leads to the reference by the name of its file.
//
// Rows are a version byte and then CBOR (RFC 8949) with integer keys, as the
// structs in codec.go say; shorten.go says how texts and times in them are.
//
// # Crash safety
//
// Operations that wait at the same time are a group (group.go). What is staged
// for them is made durable first, in one sync. Then the rows that they change
// are one record of the log (log.go), appended and synced: that is the commit.
// From then on readers see these rows in memory, above bbolt's (rows.go).
//
// The log has two segments. When one is full, or a moment after its first
// record, its rows go to bbolt in one transaction, together with the number of
// its last record, while groups go on in the other segment (flush.go). bbolt
// writes the changed pages aside, syncs, writes one of two checksummed meta
// pages, syncs: a crash leaves the state before or after. Only then is the
// segment overwritten. So an acknowledged row is in bbolt or in the log, and
// Open reads the records after the number that bbolt has: a segment or two,
// whatever the size of the store. The freelist is written with every
// transaction, although it costs a page or more: without it bbolt would have to
// read the whole file to open after a crash.
//
// bbolt trusts what it reads. So rows are read past it, page by page (tree.go),
// each page compared with a checksum that a file of its own has (sums.go), and
// what bbolt is about to read in order to write is checked before.
//
// bbolt's file never gets shorter. A compaction (compact.go) puts a copy of its rows in
// its place, online.
//
// The file is made under a temporary name, synced and linked into place, so a
// file with the final name is always complete. Beside it lies a reserve file
// of reserveSize bytes, given up when the disk is so full that not even a
// deletion can be committed.
package boltindex

// formatVersion is the version of everything above. An older one is brought up to it
// by migrate.go, another is refused.
const formatVersion = 4

// Names of files in the directory of the index.
const (
	fileName    = "index.db"
	reserveName = "reserve"
	tempPattern = "index.db.*.tmp"
)

// logNames are the files of the two segments of the log.
var logNames = [2]string{"log.0", "log.1"}

// bucket is one of the buckets above. The numbers are part of the format of the
// log.
type bucket byte

const (
	bucketMeta bucket = iota
	bucketBlobs
	bucketRefs
	bucketBySession
	bucketByConversation
	bucketByRun
	bucketByUser
	bucketUnlinks
	bucketMirrors
	bucketByDigest
	bucketByExpiry
	bucketUsage
	buckets // how many there are
)

var bucketNames = [buckets][]byte{
	[]byte("meta"), []byte("blobs"), []byte("refs"), []byte("by_session"), []byte("by_conversation"),
	[]byte("by_run"), []byte("by_user"), []byte("unlinks"), []byte("mirrors"),
	[]byte("by_digest"), []byte("by_expiry"), []byte("usage"),
}

func (b bucket) name() []byte { return bucketNames[b] }

func (b bucket) String() string { return string(bucketNames[b]) }

var (
	keyFormat       = []byte("format")
	keyStore        = []byte("store")
	keyOrganization = []byte("organization")
	keyCounters     = []byte("counters")
	keyApplied      = []byte("applied")
)

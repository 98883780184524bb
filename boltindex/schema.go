// Package boltindex is the transactional index of a store: one bbolt file that
// holds a row for every blob and every reference, and what the directory tree
// is still owed. It never touches a blob file.
//
// # Buckets
//
//	meta      "format"       -> format version, big-endian uint32
//	          "store"        -> UUID of the store, 16 bytes
//	          "organization" -> organization mode at the last open
//	          "counters"     -> counters row
//	blobs     blob key       -> blob row
//	refs      UUID           -> reference row
//	by_session, by_conversation, by_run, by_user
//	          ID 0x00 UUID   -> empty; only for IDs that are set
//	unlinks   path           -> empty; a blob whose row is gone and whose
//	                            files are still to be removed
//	mirrors   UUID kind      -> blob key; a sidecar line that is not known to
//	                            be durable yet. kind is '+' for an addition,
//	                            '-' for a tombstone
//
// A blob key is storage.BlobKey's bytes. An ID may itself hold 0x00: an entry
// belongs to an ID only if its key is exactly 17 bytes longer, and two IDs of
// one length never share a key.
//
// Rows are a version byte and then CBOR (RFC 8949) with integer keys, as the
// structs in codec.go say. Times are microseconds since 1970 UTC.
//
// # Crash safety
//
// One operation is part of one bbolt transaction, together with others that
// waited at the same time (group.go). What is staged for them is made durable
// first, in one sync. bbolt writes the changed
// pages aside, syncs, writes one of two checksummed meta pages, syncs: a crash
// leaves the state before or after the whole group. The freelist is written
// with every commit, although it costs a page or more: without it bbolt would
// have to read the whole file to open after a crash.
//
// The file is made under a temporary name, synced and linked into place, so a
// file with the final name is always complete. Beside it lies a reserve file
// of reserveSize bytes, given up when the disk is so full that not even a
// deletion can be committed.
package boltindex

// formatVersion is the version of everything above. Another one is refused.
const formatVersion = 1

// Names of files in the directory of the index.
const (
	fileName    = "index.db"
	reserveName = "reserve"
	tempPattern = "index.db.*.tmp"
)

var (
	bucketMeta           = []byte("meta")
	bucketBlobs          = []byte("blobs")
	bucketRefs           = []byte("refs")
	bucketBySession      = []byte("by_session")
	bucketByConversation = []byte("by_conversation")
	bucketByRun          = []byte("by_run")
	bucketByUser         = []byte("by_user")
	bucketUnlinks        = []byte("unlinks")
	bucketMirrors        = []byte("mirrors")

	allBuckets = [...][]byte{
		bucketMeta, bucketBlobs, bucketRefs, bucketBySession, bucketByConversation,
		bucketByRun, bucketByUser, bucketUnlinks, bucketMirrors,
	}

	keyFormat       = []byte("format")
	keyStore        = []byte("store")
	keyOrganization = []byte("organization")
	keyCounters     = []byte("counters")
)

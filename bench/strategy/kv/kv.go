// Package kv is an index over any ordered map of byte strings that has
// serialisable transactions: the work of a change is the same for all of them,
// and a strategy is only its Store.
//
// # Tables
//
//	meta      "format"       -> format version, big-endian uint32
//	          "organization" -> organization mode at the last open
//	totals    one byte       -> references, blobs, logical and physical bytes, and
//	                            references without conversation, session and run,
//	                            as varints; the sum of all rows counts
//	blobs     blob key       -> blob row
//	refs      UUID           -> reference row
//	by_session, by_conversation, by_run, by_user
//	          ID 0x00 UUID   -> empty; only for IDs that are set
//	by_digest digest 0x00 UUID -> empty; as storage.BlobRow.ListedDigest says
//	by_expiry time 0x00 UUID -> empty; only for references that expire, time as in
//	                            boltindex
//	unlinks   path           -> empty
//	mirrors   storage.Mirror.Key -> blob key
//	usage     kind ID 0x00 one byte -> references and bytes of a session ('s') or a
//	                            user ('u'), as varints; the sum of all its rows counts
//
// The rows are those of package boltindex, in an encoding of their own
// (codec.go). An ID may itself hold 0x00: an entry belongs to an ID only if its
// key is exactly 17 bytes longer, and two IDs of one length never share a key.
//
// The totals would be the one row that every change reads and writes. For a store
// whose transactions run side by side and fail when they meet, they are spread
// over many rows, and a transaction has a row of its own while it runs; so is usage.
package kv

import "iter"

// Table is one of the tables above.
type Table byte

// The tables. Their numbers are part of the format.
const (
	Meta Table = iota + 1
	Totals
	Blobs
	Refs
	BySession
	ByConversation
	ByRun
	ByUser
	Unlinks
	Mirrors
	ByDigest
	ByExpiry
	Use
)

// AllTables lists the tables.
var AllTables = [...]Table{Meta, Totals, Blobs, Refs, BySession, ByConversation, ByRun, ByUser, Unlinks, Mirrors, ByDigest, ByExpiry, Use}

// Row is a key and its value.
type Row struct{ Key, Value []byte }

// Reader shows one state of the map.
type Reader interface {
	// Get is the value of a key; it is good until the view or transaction ends.
	Get(table Table, key []byte) (value []byte, found bool, err error)
	// From goes through a table from a key on, in order of the keys. A row is good
	// until the next.
	From(table Table, key []byte) iter.Seq2[Row, error]
	// Before goes through the rows of a table before a key, the last first.
	Before(table Table, key []byte) iter.Seq2[Row, error]
}

// Txn is a transaction. What it reads may or may not show its own changes.
type Txn interface {
	Reader
	// Put and Delete keep the slices they are given until the transaction ends.
	Put(table Table, key, value []byte) error
	Delete(table Table, key []byte) error
}

// Store is an ordered map. All methods are safe for concurrent use.
type Store interface {
	// View runs fn on one state, in which every transaction is either whole or
	// not there.
	View(fn func(Reader) error) error
	// Update runs fn as a transaction that might as well have been alone, perhaps
	// several times, of which the last counts. When it returns nil, what fn
	// changed is durable, and so is all that fn has read. An error of fn is
	// returned and leaves nothing.
	Update(fn func(Txn) error) error
	// Close closes; nothing is under way or follows.
	Close() error
}

// Key is table and key as one key, for a map that has no tables.
func Key(table Table, key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), byte(table)), key...)
}

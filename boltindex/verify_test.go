package boltindex_test

import (
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/boltindex"
	"github.com/mediabolt/mediabolt/storage"
)

// record is a row as it stands in the file, field by field.
type record map[int]any

// change changes one field of the row at bucket and key.
func change(bucket string, key []byte, field int, value any) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		row := b.Get(key)
		var r record
		if err := cbor.Unmarshal(row[1:], &r); err != nil {
			return err
		}
		r[field] = value
		body, err := cbor.Marshal(r)
		if err != nil {
			return err
		}
		return b.Put(key, append([]byte{row[0]}, body...))
	}
}

func drop(bucket string, key []byte) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete(key) }
}

func put(bucket string, key []byte) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, nil) }
}

// digestKey is that of a reference in the list of the digest of its bytes.
func digestKey(u storage.UUID) []byte {
	digest := addition(u, storage.MediaMetadata{}).Blob.Digest
	return append(digest[:8:8], u[:]...)
}

// usageKey is that of the usage row of an ID.
func usageKey(prefix byte, id string) []byte {
	list := boltindex.MemberKey(id, storage.UUID{})
	return append([]byte{prefix}, list[:len(list)-len(storage.UUID{})]...)
}

// Fields of rows, as codec.go numbers them.
const (
	blobSize = 3
	blobRefs = 7
	refBlob  = 1
	refUser  = 5

	usageRefs  = 1
	usageBytes = 2

	counterRefs          = 1
	counterBlobs         = 2
	counterLogicalBytes  = 3
	counterPhysicalBytes = 4
	counterNoSession     = 6
)

// TestVerifyFinds makes one thing wrong at a time in an index of two blobs, one
// of which two references share.
func TestVerifyFinds(t *testing.T) {
	shared1, shared2, lone := storage.UUID{0: 1, 15: 9}, storage.UUID{0: 2, 15: 9}, storage.UUID{0: 3, 15: 8}
	sharedKey := []byte(addition(shared1, storage.MediaMetadata{}).Blob.Key)
	loneKey := []byte(addition(lone, storage.MediaMetadata{}).Blob.Key)
	cases := map[string]struct {
		edit func(*bolt.Tx) error
		kind storage.FindingKind
		ref  storage.UUID // whose finding it is, if any one's
	}{
		"refcount too high":              {edit: change("blobs", sharedKey, blobRefs, 3), kind: storage.FindingRefcount},
		"refcount too low":               {edit: change("blobs", sharedKey, blobRefs, 1), kind: storage.FindingRefcount},
		"refcount zero":                  {edit: change("blobs", loneKey, blobRefs, 0), kind: storage.FindingRefcount},
		"refcount negative":              {edit: change("blobs", loneKey, blobRefs, -1), kind: storage.FindingRefcount},
		"reference gone":                 {edit: drop("refs", shared2[:]), kind: storage.FindingRefcount},
		"every reference gone":           {edit: drop("refs", lone[:]), kind: storage.FindingRefcount},
		"reference names another blob":   {edit: change("refs", shared2[:], refBlob, loneKey), kind: storage.FindingRefcount},
		"reference names no blob":        {edit: change("refs", lone[:], refBlob, []byte(storage.UUIDKey(lone))), kind: storage.FindingDangling, ref: lone},
		"reference of an unreadable row": {edit: put("refs", lone[:]), kind: storage.FindingDangling, ref: lone},
		"reference of a wrong blob key":  {edit: change("refs", lone[:], refBlob, []byte("d")), kind: storage.FindingDangling, ref: lone},
		"blob row gone":                  {edit: drop("blobs", loneKey), kind: storage.FindingDangling, ref: lone},
		"blob row unreadable":            {edit: put("blobs", loneKey), kind: storage.FindingIndex},
		"blob row without references": {kind: storage.FindingRefcount, edit: func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("blobs"))
			return b.Put([]byte(storage.UUIDKey(lone)), append([]byte{}, b.Get(loneKey)...))
		}},
		"size changed":              {edit: change("blobs", loneKey, blobSize, 1), kind: storage.FindingCounter},
		"session entry gone":        {edit: drop("by_session", boltindex.MemberKey("s", shared1)), kind: storage.FindingDangling, ref: shared1},
		"conversation entry gone":   {edit: drop("by_conversation", boltindex.MemberKey("c", shared1)), kind: storage.FindingDangling, ref: shared1},
		"run entry gone":            {edit: drop("by_run", boltindex.MemberKey("r", shared1)), kind: storage.FindingDangling, ref: shared1},
		"user entry gone":           {edit: drop("by_user", boltindex.MemberKey("u", shared1)), kind: storage.FindingDangling, ref: shared1},
		"entry of an unknown one":   {edit: put("by_session", boltindex.MemberKey("s", storage.UUID{0: 7})), kind: storage.FindingDangling, ref: storage.UUID{0: 7}},
		"entry of another ID":       {edit: put("by_session", boltindex.MemberKey("other", shared1)), kind: storage.FindingDangling},
		"entry where no ID is set":  {edit: put("by_run", boltindex.MemberKey("r", lone)), kind: storage.FindingDangling},
		"entry too short":           {edit: put("by_user", []byte("u")), kind: storage.FindingDangling},
		"ID changed in the row":     {edit: change("refs", shared1[:], refUser, "someone else"), kind: storage.FindingDangling, ref: shared1},
		"digest entry gone":         {edit: drop("by_digest", digestKey(shared2)), kind: storage.FindingDangling, ref: shared2},
		"digest entry of a founder": {edit: put("by_digest", digestKey(lone)), kind: storage.FindingDangling},
		"digest entry of no one":    {edit: put("by_digest", digestKey(storage.UUID{0: 7})), kind: storage.FindingDangling, ref: storage.UUID{0: 7}},
		"counter of references":     {edit: change("meta", []byte("counters"), counterRefs, 4), kind: storage.FindingCounter},
		"counter of blobs":          {edit: change("meta", []byte("counters"), counterBlobs, 1), kind: storage.FindingCounter},
		"counter of logical bytes":  {edit: change("meta", []byte("counters"), counterLogicalBytes, 0), kind: storage.FindingCounter},
		"counter of physical bytes": {edit: change("meta", []byte("counters"), counterPhysicalBytes, 5000), kind: storage.FindingCounter},
		"counter of no session":     {edit: change("meta", []byte("counters"), counterNoSession, 7), kind: storage.FindingCounter},
		"counters gone":             {edit: drop("meta", []byte("counters")), kind: storage.FindingCounter},
		"usage of references":       {edit: change("usage", usageKey('s', "s"), usageRefs, 5), kind: storage.FindingCounter},
		"usage of bytes":            {edit: change("usage", usageKey('u', "u"), usageBytes, 1), kind: storage.FindingCounter},
		"usage gone":                {edit: drop("usage", usageKey('u', "u")), kind: storage.FindingCounter},
		// One entry gone and one too many keep the number of entries.
		"entry under the wrong ID": {kind: storage.FindingDangling, ref: shared1, edit: func(tx *bolt.Tx) error {
			if err := drop("by_session", boltindex.MemberKey("s", shared1))(tx); err != nil {
				return err
			}
			return put("by_session", boltindex.MemberKey("other", shared1))(tx)
		}},
		"mirror row unreadable": {edit: put("mirrors", []byte("short")), kind: storage.FindingIndex},
	}
	for what, c := range cases {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			x := mustOpen(t, dir)
			all := storage.MediaMetadata{SessionID: "s", ConversationID: "c", RunID: "r", UserID: "u"}
			mustAdd(t, x, shared1, all)
			mustAdd(t, x, shared2, all)
			mustAdd(t, x, lone, storage.MediaMetadata{SessionID: "s"})
			mustClose(t, x)
			edit(t, dir, c.edit)

			x = mustOpen(t, dir)
			findings, err := x.Verify(t.Context())
			require.NoError(t, err)
			var kinds []storage.FindingKind
			var refs []string
			for _, f := range findings {
				require.Equal(t, storage.SeverityDamage, f.Severity)
				require.NotEmpty(t, f.Detail)
				kinds = append(kinds, f.Kind)
				if f.Kind == c.kind {
					refs = append(refs, f.Ref)
				}
			}
			require.Contains(t, kinds, c.kind, "%+v", findings)
			if c.ref != (storage.UUID{}) {
				require.Contains(t, refs, c.ref.String(), "%+v", findings)
			}
			require.NoError(t, x.Close())
		})
	}
}

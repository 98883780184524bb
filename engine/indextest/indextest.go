// Package indextest is the suite that every implementation of engine.Index
// must pass. It asks through the interface alone, so what it checks is what a
// store may rely on.
package indextest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Open opens the index kept in dir, an existing directory, and makes it where
// there is none. It fails t when it cannot.
type Open = func(t *testing.T, dir string) engine.Index

// Run runs the suite, each case on indexes of its own. At the end of a case
// the index must find nothing wrong with itself, and neither once it is opened
// again, which is a test of its own called "reopened".
func Run(t *testing.T, open func(t *testing.T, dir string) engine.Index) {
	cases := []struct {
		name string
		run  func(*fixture)
	}{
		{"an empty index", testEmpty},
		{"add a new blob", testAddNew},
		{"add to a blob that is there", testAddPresent},
		{"add unstaged to a blob that is not there", testAddAbsent},
		{"blobs of their own", testAddUUIDBlobs},
		{"remove one of several", testRemoveOneOfSeveral},
		{"remove the last", testRemoveLast},
		{"remove what is not there", testRemoveUnknown},
		{"add again after the last was removed", testAddAfterLast},
		{"every field round-trips", testFields},
		{"times", testTimes},
		{"touch", testTouch},
		{"lists by ID", testLists},
		{"hostile IDs", testHostileIDs},
		{"pages of references", testRefPages},
		{"pages while references go", testRefPagesWhileRemoving},
		{"newest first", testNewest},
		{"newest first while references come and go", testNewestWhileChanging},
		{"combined filters", testCombinedFilters},
		{"lists by digest", testDigestLists},
		{"a list by digest in pages", testDigestPages},
		{"blobs of scopes", testScopes},
		{"IDs", testIDs},
		{"IDs of many references", testIDsOfMany},
		{"pages of blobs", testBlobPages},
		{"counters", testCounters},
		{"usage of sessions and users", testUsage},
		{"revise", testRevise},
		{"a reference that counts several", testCounted},
		{"references by expiry", testDue},
		{"end what is due", testEnd},
		{"move a blob", testMove},
		{"move to the name of another reference", testMoveNamed},
		{"move to the path that it has", testMoveNowhere},
		{"debt", testDebt},
		{"settle", testSettle},
		{"owe", testOwe},
		{"settle much", testSettleMuch},
		{"durability", testDurability},
		{"size", testSize},
		{"cancelled contexts", testCancelled},
		{"concurrent changes", testConcurrent},
		{"concurrent removals of one reference", testConcurrentRemovals},
		{"readers beside writers", testReadersBesideWriters},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, open, t.TempDir())
			c.run(f)
			f.verify()
			f.close()
			t.Run("reopened", func(t *testing.T) { newFixture(t, open, f.dir).verify() })
		})
	}
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

// fixture is the index that a case works on.
type fixture struct {
	t    *testing.T
	ctx  context.Context
	open Open
	dir  string
	x    engine.Index
	made uint64 // references made so far
}

// newFixture opens the index in dir, and closes it when t ends.
func newFixture(t *testing.T, open Open, dir string) *fixture {
	f := &fixture{t: t, ctx: context.Background(), open: open, dir: dir}
	f.x = open(t, dir)
	t.Cleanup(f.close)
	return f
}

// close closes the index unless it is closed.
func (f *fixture) close() {
	f.t.Helper()
	if f.x != nil {
		x := f.x
		f.x = nil
		require.NoError(f.t, x.Close())
	}
}

func (f *fixture) reopen() {
	f.t.Helper()
	f.close()
	f.x = f.open(f.t, f.dir)
}

func (f *fixture) verify() {
	f.t.Helper()
	findings, err := f.x.Verify(f.ctx)
	require.NoError(f.t, err)
	require.Empty(f.t, findings)
}

// digestOf is the digest of the blob called name.
func digestOf(name string) storage.Digest { return sha256.Sum256([]byte(name)) }

func keyOf(name string) storage.BlobKey { return storage.DigestKey(digestOf(name)) }

// uuidOf is the nth UUID: they sort like their numbers, which start at 1 and
// have 48 bits.
func uuidOf(n uint64) storage.UUID {
	var u storage.UUID
	binary.BigEndian.PutUint64(u[:], n<<16|0x7000)
	binary.BigEndian.PutUint64(u[8:], 1<<63|n*0x9e3779b97f4a7c15>>2)
	return u
}

// creation is when the nth reference was made.
func creation(n uint64) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
}

// newAddition asks for the nth reference, to the blob called name. Its size
// follows from the name alone.
func newAddition(name string, n uint64, m storage.MediaMetadata) *storage.Addition {
	id := storage.ID{UUID: uuidOf(n)}
	digest := digestOf(name)
	copy(id.Hash[:], digest[:])
	if m.CreatedAt.IsZero() {
		m.CreatedAt = creation(n)
	}
	return &storage.Addition{
		Ref: storage.RefRow{UUID: id.UUID, Blob: storage.DigestKey(digest), Type: "image", MimeType: "image/png", Metadata: m},
		Blob: storage.BlobRow{
			Key: storage.DigestKey(digest), Path: "s/c/" + id.String() + ".png", Organization: storage.OrganizationBySession,
			Size: 100 + int64(digest[0]), CRC: binary.BigEndian.Uint32(digest[:]), Digest: digest, MimeType: "image/png",
			CreatedAt: m.CreatedAt,
		},
		Staged: true,
	}
}

// next is newAddition of a reference that has not been made before.
func (f *fixture) next(name string, m storage.MediaMetadata) *storage.Addition {
	f.made++
	return newAddition(name, f.made, m)
}

// idOf is the ID of the reference that add asks for.
func idOf(add *storage.Addition) storage.ID {
	id := storage.ID{UUID: add.Ref.UUID}
	if _, err := fmt.Sscanf(add.Blob.NameHash(), "%02x%02x%02x", &id.Hash[0], &id.Hash[1], &id.Hash[2]); err != nil {
		panic(err) // every addition of this package has a path with a hash
	}
	return id
}

// mustAdd adds a new reference to the blob called name and returns its ID.
func (f *fixture) mustAdd(name string, m storage.MediaMetadata) storage.ID {
	f.t.Helper()
	add := f.next(name, m)
	_, err := f.x.Add(f.ctx, add)
	require.NoError(f.t, err)
	return idOf(add)
}

func (f *fixture) mustRemove(id storage.ID) storage.Removal {
	f.t.Helper()
	removal, err := f.x.Remove(f.ctx, id)
	require.NoError(f.t, err)
	return removal
}

func (f *fixture) mustBlob(key storage.BlobKey) storage.BlobRow {
	f.t.Helper()
	blob, err := f.x.Blob(f.ctx, key)
	require.NoError(f.t, err)
	return blob
}

func (f *fixture) requireGone(id storage.ID) {
	f.t.Helper()
	_, _, err := f.x.Ref(f.ctx, id)
	require.ErrorIs(f.t, err, storage.ErrNotFound)
	require.NotErrorIs(f.t, err, storage.ErrCorrupted)
}

func (f *fixture) counters() storage.Counters {
	f.t.Helper()
	c, err := f.x.Counters(f.ctx)
	require.NoError(f.t, err)
	return c
}

func (f *fixture) debt() storage.Debt {
	f.t.Helper()
	debt, err := f.x.Debt(f.ctx)
	require.NoError(f.t, err)
	return debt
}

func requireDebt(t require.TestingT, want, got storage.Debt) {
	require.ElementsMatch(t, want.Mirrors, got.Mirrors)
	require.ElementsMatch(t, want.Unlinks, got.Unlinks)
}

// refs is every reference that filter lets through, read in pages of limit
// rows, each page checked.
func (f *fixture) refs(filter storage.RefFilter, limit int) []storage.RefPair {
	f.t.Helper()
	return readRefs(f.t, f.x, filter, limit)
}

func readRefs(t require.TestingT, x engine.Index, filter storage.RefFilter, limit int) []storage.RefPair {
	var all []storage.RefPair
	var after storage.UUID
	for {
		page, next, more, err := x.Refs(context.Background(), filter, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		for _, pair := range page {
			if filter.Newest && !after.IsZero() {
				require.Greater(t, after.String(), pair.Ref.UUID.String(), "out of order")
			} else if !filter.Newest {
				require.Less(t, after.String(), pair.Ref.UUID.String(), "out of order")
			}
			if filter.Newest {
				require.GreaterOrEqual(t, pair.Ref.UUID.String(), next.String(), "the next page would repeat it")
			} else {
				require.LessOrEqual(t, pair.Ref.UUID.String(), next.String(), "the next page would repeat it")
			}
			require.Equal(t, pair.Ref.Blob, pair.Blob.Key)
			after = pair.Ref.UUID
			all = append(all, pair)
		}
		if !more {
			return all
		}
		after = next
	}
}

// blobRows is every blob row, read in pages of limit rows, each page checked.
func (f *fixture) blobRows(limit int) []storage.BlobRow {
	f.t.Helper()
	return readBlobs(f.t, f.x, limit)
}

func readBlobs(t require.TestingT, x engine.Index, limit int) []storage.BlobRow {
	var all []storage.BlobRow
	var after storage.BlobKey
	for {
		page, err := x.Blobs(context.Background(), after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		for _, b := range page {
			require.Less(t, after, b.Key, "out of order")
			after = b.Key
			all = append(all, b)
		}
		if len(page) < limit {
			return all
		}
	}
}

// ids is every ID of a kind, read in pages of limit IDs, each page checked, in order.
func (f *fixture) ids(kind storage.IDKind, limit int) []string {
	f.t.Helper()
	return readIDs(f.t, f.x, kind, limit)
}

func readIDs(t require.TestingT, x engine.Index, kind storage.IDKind, limit int) []string {
	all := map[string]bool{}
	after := ""
	for {
		page, err := x.IDs(context.Background(), kind, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), limit)
		for _, id := range page {
			require.NotEmpty(t, id)
			require.False(t, all[id], "%.40q comes twice", id)
			all[id] = true
			after = id
		}
		if len(page) < limit {
			return slices.Sorted(maps.Keys(all))
		}
	}
}

// uuids are those of a listing, in its order.
func uuids(pairs []storage.RefPair) []storage.UUID {
	list := make([]storage.UUID, len(pairs))
	for i := range pairs {
		list[i] = pairs[i].Ref.UUID
	}
	return list
}

func uuidsOf(ids []storage.ID) []storage.UUID {
	list := make([]storage.UUID, len(ids))
	for i := range ids {
		list[i] = ids[i].UUID
	}
	return list
}

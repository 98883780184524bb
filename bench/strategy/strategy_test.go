package strategy_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/bench/strategy"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Environment of a run of this test binary that is a child process.
const (
	childRole     = "MEDIABOLT_TEST_CHILD"
	childStrategy = "MEDIABOLT_TEST_STRATEGY"
	childDir      = "MEDIABOLT_TEST_DIR"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The model opens an index some ten times for every check, and badger takes
	// 50 ms each time.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	if os.Getenv(childRole) == "store" {
		storeUntilKilled(os.Getenv(childStrategy), os.Getenv(childDir))
		return
	}
	os.Exit(m.Run())
}

func open(ctx context.Context, t testing.TB, s strategy.Strategy, dir string, config engine.IndexConfig) (engine.Index, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	config.Root = root
	return s.Open(ctx, config)
}

func mustOpen(t testing.TB, s strategy.Strategy, dir string) engine.Index {
	t.Helper()
	x, err := open(context.Background(), t, s, dir, engine.IndexConfig{Create: true, Organization: storage.OrganizationBySession})
	require.NoError(t, err)
	return x
}

// addition asks for the nth reference, to the blob of another number.
func addition(n, blob uint64) *storage.Addition {
	digest := storage.Digest(sha256.Sum256(binary.BigEndian.AppendUint64(nil, blob)))
	id := storage.ID{Hash: [3]byte(digest[:]), UUID: uuidOf(n)}
	created := time.UnixMicro(1_770_000_000_000_000 + int64(n)).UTC()
	return &storage.Addition{
		Ref: storage.RefRow{UUID: id.UUID, Blob: storage.DigestKey(digest), Type: "image", MimeType: "image/png", Metadata: storage.MediaMetadata{
			SessionID: fmt.Sprint("session-", n%100), ConversationID: fmt.Sprint("conversation-", n%1000), RunID: fmt.Sprint("run-", n%10000),
			UserID: fmt.Sprint("user-", n%50), MessageIndex: int(n % 1000), CreatedAt: created,
		}},
		Blob: storage.BlobRow{
			Key: storage.DigestKey(digest), Path: fmt.Sprintf("session-%d/conversation-%d/%s.png", n%100, n%1000, id),
			Organization: storage.OrganizationBySession, Size: 100 << 10, CRC: uint32(blob), Digest: digest, MimeType: "image/png", CreatedAt: created,
		},
		Staged: true,
	}
}

// idOf is the ID of the nth reference, which is to the blob of another number.
func idOf(n, blob uint64) storage.ID {
	add := addition(n, blob)
	return storage.ID{Hash: [3]byte(add.Blob.Digest[:]), UUID: add.Ref.UUID}
}

// uuidOf is the nth UUID, in order.
func uuidOf(n uint64) storage.UUID {
	u := storage.UUID{6: 0x70, 8: 0x80}
	binary.BigEndian.PutUint32(u[2:], uint32(n))
	return u
}

func mustVerify(t testing.TB, x engine.Index) {
	t.Helper()
	findings, err := x.Verify(context.Background())
	require.NoError(t, err)
	require.Empty(t, findings)
}

func forEach(t *testing.T, test func(t *testing.T, s strategy.Strategy)) {
	for _, s := range strategy.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

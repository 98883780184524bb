package certify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// piece is one stored medium: the operation that stored it, which also names its
// dossier, and the seed of its bytes. Everything else about it follows from these two.
type piece struct {
	op   string
	seed uint64
}

// Seeds below sharedSeeds are used by everybody, so that their blobs have many
// references. Of the seeds modulo sizeClasses, 0 is content that is spooled,
// since it is more than a Store keeps in memory, and 1 is empty.
const (
	sharedSeeds = 64
	sizeClasses = 32
	spooledSize = 1 << 20
	usualSize   = 32 << 10
)

// content is the bytes of a seed.
func content(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0x6d65646961))
	size := r.IntN(usualSize)
	switch seed % sizeClasses {
	case 0:
		size += spooledSize
	case 1:
		size = 0
	}
	var key [32]byte
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data) // is documented to never fail
	return data
}

// Labels that carry a piece through a store.
const (
	labelOp   = "op"
	labelSeed = "seed"
)

// metadata is what p is stored with; some IDs of some pieces are missing.
func (p piece) metadata() storage.MediaMetadata {
	h := fnv.New32a()
	_, _ = h.Write([]byte(p.op)) // is documented to never fail
	n := int(h.Sum32() >> 1)
	m := storage.MediaMetadata{
		SessionID:    cmp.Or(p.dossier(), fmt.Sprint("session ", n%sessions)),
		MessageIndex: n % 7,
		Labels:       map[string]string{labelOp: p.op, labelSeed: strconv.FormatUint(p.seed, 10)},
	}
	if n%3 != 0 {
		m.ConversationID = fmt.Sprint("conv/", n%5)
	}
	if n%4 != 0 {
		m.RunID = fmt.Sprint("run-", n%3)
	}
	if n%7 != 0 {
		m.UserID = fmt.Sprint("user ", n%users)
	}
	return m
}

// Sessions and users that pieces without a dossier are of.
const (
	sessions = 20
	users    = 6
)

// dossier is the session of pieces that one goroutine has alone, so that it may hold
// and erase them together; empty: p is in none.
func (p piece) dossier() string {
	_, dossier, _ := strings.Cut(p.op, "/")
	return dossier
}

// dossierPattern finds the names of dossiers in paths and sidecars.
var dossierPattern = regexp.MustCompile(dossierPrefix + `\d+-\d{6}`)

// dossierPrefix is what they begin with.
const dossierPrefix = "dossier-"

func dossierName(round int, number int64) string {
	return fmt.Sprintf("%s%d-%06d", dossierPrefix, round, number)
}

// round is the round in which p was stored; known is false where its operation tells
// of none.
func (p piece) round() (round int, known bool) {
	number, _, _ := strings.Cut(p.op, ".")
	round, err := strconv.Atoi(number)
	return round, err == nil
}

// pieceOf is the piece that a store says is behind an entry.
func pieceOf(e *engine.Entry) (piece, error) {
	seed, err := strconv.ParseUint(e.Metadata.Labels[labelSeed], 10, 64)
	if err != nil {
		return piece{}, fmt.Errorf("%w: reference %s: label %q: %w", errBroken, e.Reference.ID, labelSeed, err)
	}
	return piece{op: e.Metadata.Labels[labelOp], seed: seed}, nil
}

// differs says how an entry differs from what p was stored with; empty: not.
func (p piece) differs(e *engine.Entry) string {
	want, got := p.metadata(), e.Metadata
	for _, c := range []struct{ field, got, want string }{
		{"session", got.SessionID, want.SessionID},
		{"conversation", got.ConversationID, want.ConversationID},
		{"run", got.RunID, want.RunID},
		{"user", got.UserID, want.UserID},
		{"label " + labelOp, got.Labels[labelOp], want.Labels[labelOp]},
		{"label " + labelSeed, got.Labels[labelSeed], want.Labels[labelSeed]},
		{"message index", strconv.Itoa(got.MessageIndex), strconv.Itoa(want.MessageIndex)},
	} {
		if c.got != c.want {
			return fmt.Sprintf("%s is %q, stored with %q", c.field, c.got, c.want)
		}
	}
	return ""
}

// errBroken marks an error that means that a promise was broken.
var errBroken = errors.New("promise broken")

// compare reads a reference and requires the bytes of a seed; others are
// errBroken.
func compare(ctx context.Context, store *engine.FileStore, id string, seed uint64) error {
	blob, err := store.Open(ctx, &storage.StorageReference{ID: id})
	if err != nil {
		return err
	}
	want := content(seed)
	// One byte more than there should be, so that the end is met.
	got := make([]byte, len(want)+1)
	n, err := io.ReadFull(blob, got)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err := errors.Join(err, blob.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("%w: reference %s: %d bytes that are not the %d of seed %d", errBroken, id, n, len(want), seed)
	}
	return nil
}

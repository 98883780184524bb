package engine

import (
	"fmt"

	"github.com/mediabolt/mediabolt/storage"
)

// DedupScope says among which references equal bytes are kept once, where
// EnableDeduplication is on. Within a scope content is shared. Across scopes it is
// as if there were no deduplication: every scope has a blob of its own, so that
// neither a path, nor a count of references, nor the time that a Store takes
// depends on what others have stored. The scope of a blob never changes.
//
// That holds for those who store, read and delete. Whoever operates the store sees
// all: References and Query.Digest list equal bytes of every scope, Stats has the
// totals, and file names and IDs begin with 24 bits of the digest.
type DedupScope string

const (
	// ScopeGlobal shares content among all references, the default.
	ScopeGlobal DedupScope = "global"
	// ScopeUser shares content among the references with the same UserID. What
	// has none is never shared.
	ScopeUser DedupScope = "per-user"
	// ScopeSession shares content among the references with the same SessionID.
	// What has none is never shared.
	ScopeSession DedupScope = "per-session"
)

// DedupScopes are all of them.
func DedupScopes() []DedupScope { return []DedupScope{ScopeGlobal, ScopeUser, ScopeSession} }

func (d DedupScope) validate() error {
	switch d {
	case "", ScopeGlobal, ScopeUser, ScopeSession:
		return nil
	}
	return fmt.Errorf("%w: DedupScope %q: want %q, %q or %q", storage.ErrInvalidConfig, string(d), ScopeGlobal, ScopeUser, ScopeSession)
}

// sharedKey is the key of the blob that a reference with metadata m shares with
// others; shared is false where it shares with nobody.
func (s *store) sharedKey(digest storage.Digest, m *storage.MediaMetadata) (key storage.BlobKey, shared bool) {
	if !s.cfg.EnableDeduplication {
		return "", false
	}
	kind := storage.UserIDs
	switch s.cfg.DedupScope {
	case ScopeUser:
	case ScopeSession:
		kind = storage.SessionIDs
	default:
		return storage.DigestKey(digest), true
	}
	id := kind.Of(m)
	if id == "" {
		return "", false
	}
	return storage.ScopedKey(digest, storage.ScopeOf(kind, id)), true
}

package engine

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// SyncMode says what a store does so that its writes outlive a power cut.
type SyncMode string

const (
	// SyncFull makes every Store and Delete durable before it returns.
	SyncFull SyncMode = "full"
	// SyncNone never syncs. A killed process loses nothing, a power cut may
	// lose or damage anything: for tests and scratch stores.
	SyncNone SyncMode = "none"
)

// DefaultLockTimeout is how long opening waits for another process.
const DefaultLockTimeout = time.Second

// FileStoreConfig configures a store. Only BaseDir is required.
type FileStoreConfig struct {
	// BaseDir is the directory of the store, absolute or relative to the
	// working directory. It is made where it is missing.
	BaseDir string
	// Organization of the directories of new blobs. Default: the mode that the
	// store was last opened with, by-session for a new store. Another one
	// applies from now on; blobs that are there stay where they are.
	Organization storage.OrganizationMode
	// EnableDeduplication keeps equal bytes once, however many references
	// name them. Default: off, every Store writes a file of its own.
	EnableDeduplication bool
	// DedupScope is among whom equal bytes are kept once. Default: ScopeGlobal.
	// Another one applies to what is stored from now on.
	DedupScope DedupScope
	// MaxFileSize bounds one blob, in bytes. Default: 0, no bound.
	MaxFileSize int64
	// Quota bounds what the store holds; a Store or Import that would pass it is
	// ErrDiskSpace, before a byte is written. It applies to what is stored while it
	// is set: what is there stays. Default: no bound.
	Quota Quota
	// MinFreeBytes is how much is to stay free on the filesystem, in bytes: a Store
	// that would leave less is ErrDiskSpace, before a byte is written, a stream of
	// unknown length as it is read. What other programs write, and the store's own
	// index and sidecars, may still take some of it. Default: 0.
	MinFreeBytes int64
	// Sync is the durability. Default: SyncFull.
	Sync SyncMode
	// NoSyncFS never uses syncfs(2), which on Linux serves many writers with
	// one flush but also flushes what other programs wrote to the same
	// filesystem. Costs throughput with many writers.
	NoSyncFS bool
	// LockTimeout is how long opening waits for another process that has the
	// store. Default: DefaultLockTimeout. Negative: one attempt.
	LockTimeout time.Duration
	// NoCreate refuses to make a store where there is none, with ErrNoStore.
	NoCreate bool
	// RebuildIndex has Open make the index anew, as Rebuild does, where it is lost
	// or damaged. Default: off, that is ErrCorrupted.
	RebuildIndex bool
	// CompactAt is from how many bytes of free pages in the index's file on the
	// store makes it smaller by itself, in the background and with at least ten
	// minutes between two times, where more than half of the file is free. Costs a copy of
	// what is in use. Default: 16 MiB (boltindex.DefaultCompactAt). Negative: never,
	// see FileStore.Compact.
	CompactAt int64
	// WrapPCM stores raw PCM as WAV files, which play everywhere: content with
	// the MIME type audio/pcm (little-endian), or audio/L8, audio/L16 or audio/L24
	// (big-endian), whose parameters rate, bits, channels and endianness say how
	// it is laid out: by default 24000 Hz, 16 bits, 1 channel. The reference's
	// MIME type is audio/wav then, and its label ConvertedFrom has the other.
	// Content of a MIME type that is only sniffed is never PCM. Costs a second
	// writing of streams of more than 1 MiB. Default: off.
	WrapPCM bool
	// DefaultPolicy is the retention policy (see ParsePolicy) of what is stored
	// without one, counted from the time of the Store. Default: none, which is kept
	// for ever. What is stored already keeps its own.
	DefaultPolicy string
	// Retention is the rule for what is stored without a policy: the name of one, or
	// empty for DefaultPolicy. It is called by every such Store, at once by several,
	// with the type and MIME type as they are kept, and must not change the labels.
	// Default: nil.
	Retention func(storage.MediaInfo, storage.MediaMetadata) string
	// SweepInterval makes the store end by itself, while it is open, what Expire would:
	// at the latest this long after the expiry, give or take a tenth at random and the
	// time that it takes. Default: 0, the store ends nothing by itself.
	SweepInterval time.Duration
	// SweepRate bounds how many references the store ends by itself, in references
	// per second. Default: 0, no bound.
	SweepRate int
	// FileMode and DirMode are the permissions of what is made, before the
	// umask. Default: 0600 and 0700.
	FileMode, DirMode fs.FileMode
	// Logger gets what no caller waits for: background failures and repairs.
	// Default: nothing is logged.
	Logger *slog.Logger
	// EventListener is told of what the store has done. Costs what its functions
	// take. Default: nil, nobody is.
	EventListener *EventListener
	// OpenIndex opens the index of the store. A store keeps to one kind of index
	// for life. Default: package boltindex.
	OpenIndex func(ctx context.Context, config IndexConfig) (Index, error)

	faults faultPoints
	// clock takes the place of time.Now where policies begin and end.
	clock func() time.Time
	// salvage asks what is left of an index that OpenIndex cannot open; nil where
	// it is of another kind than the built-in one.
	salvage func(ctl *os.Root) (*remains, error)
	// decorate wraps index and blobs, for tests that break a protocol on
	// purpose.
	decorate func(Index, Blobs) (Index, Blobs)
	// syncFS takes the place of syncfs(2), for filesystems of tests.
	syncFS func() error
	// unfinished opens a backup that is not whole.
	unfinished bool
}

// withDefaults fills in the defaults and answers ErrInvalidConfig, naming the
// field, for what cannot be used.
func (c FileStoreConfig) withDefaults() (FileStoreConfig, error) {
	if c.BaseDir == "" {
		return c, fmt.Errorf("%w: BaseDir is empty", storage.ErrInvalidConfig)
	}
	abs, err := filepath.Abs(c.BaseDir)
	if err != nil {
		return c, fmt.Errorf("%w: BaseDir %q: %w", storage.ErrInvalidConfig, c.BaseDir, err)
	}
	c.BaseDir = abs
	if c.Organization != "" {
		if err := c.Organization.Validate(); err != nil {
			return c, err
		}
	}
	if err := c.DedupScope.validate(); err != nil {
		return c, err
	}
	if c.MaxFileSize < 0 {
		return c, fmt.Errorf("%w: MaxFileSize %d is negative", storage.ErrInvalidConfig, c.MaxFileSize)
	}
	if err := c.Quota.validate(); err != nil {
		return c, err
	}
	if c.MinFreeBytes < 0 {
		return c, fmt.Errorf("%w: MinFreeBytes %d is negative", storage.ErrInvalidConfig, c.MinFreeBytes)
	}
	if c.DefaultPolicy != "" {
		if _, err := ParsePolicy(c.DefaultPolicy); err != nil {
			return c, fmt.Errorf("%w: DefaultPolicy: %w", storage.ErrInvalidConfig, err)
		}
	}
	if c.SweepInterval < 0 || c.SweepRate < 0 {
		return c, fmt.Errorf("%w: SweepInterval %v, SweepRate %d: negative", storage.ErrInvalidConfig, c.SweepInterval, c.SweepRate)
	}
	if c.Sync == "" {
		c.Sync = SyncFull
	}
	if c.Sync != SyncFull && c.Sync != SyncNone {
		return c, fmt.Errorf("%w: Sync %q: want %q or %q", storage.ErrInvalidConfig, c.Sync, SyncFull, SyncNone)
	}
	switch {
	case c.LockTimeout == 0:
		c.LockTimeout = DefaultLockTimeout
	case c.LockTimeout < 0:
		c.LockTimeout = 0
	}
	if c.FileMode == 0 {
		c.FileMode = 0o600
	}
	if c.DirMode == 0 {
		c.DirMode = 0o700
	}
	if c.FileMode&0o600 != 0o600 || c.FileMode&^0o777 != 0 {
		return c, fmt.Errorf("%w: FileMode %#o: the owner must be able to read and write, and only permission bits may be set", storage.ErrInvalidConfig, c.FileMode)
	}
	if c.DirMode&0o700 != 0o700 || c.DirMode&^0o777 != 0 {
		return c, fmt.Errorf("%w: DirMode %#o: the owner must be able to read, write and enter, and only permission bits may be set", storage.ErrInvalidConfig, c.DirMode)
	}
	if c.OpenIndex == nil {
		c.OpenIndex, c.salvage = openBoltIndex, salvageBolt
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

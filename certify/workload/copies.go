package workload

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"

	"github.com/mediabolt/mediabolt/engine"
)

// Where a workload keeps what it makes of its store: beside that.
const (
	besideBackup   = " backup"
	besideRestored = " restored"
	besideImported = " imported"
)

// beside is another store in the directory that the store's is in.
func (t *Target) beside(what string) Target { return Target{Dir: t.Dir + what, Configure: t.Configure} }

// RunBackup is a workload of backups: a first one, and one that brings it up to date beside
// stores and deletions.
func RunBackup(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.backUpTwice)
	return ctx.Err()
}

// RunRestore is a workload of a backup, an erasure after it, and a restore, which
// honours the erasure.
func RunRestore(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, func(ctx context.Context) {
		s.various(ctx)
		doomed := s.doomed(ctx)
		_ = s.client.Backup(ctx, target, engine.BackupOptions{}) // the journal has the error
		_ = s.client.Erase(ctx, doomedSession, doomed)
	})
	_ = target.Restore(ctx, journal)
	return ctx.Err()
}

// RunImport is a workload of an export, and of its import into another store.
func RunImport(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	var archive bytes.Buffer
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, func(ctx context.Context) {
		s.various(ctx)
		s.putReader(ctx, s.content(longStream), Place{Session: "long"})
		_ = s.client.Export(ctx, &archive) // the journal has the error
	})
	_ = target.Import(ctx, journal, archive.Bytes())
	return ctx.Err()
}

// backUpTwice backs up a store that changes in between, and meanwhile.
func (s *script) backUpTwice(ctx context.Context) {
	s.various(ctx)
	place := Place{Session: "backed up"}
	gone := s.put(ctx, s.content(3000), place)
	late := s.put(ctx, s.content(3000), place)
	_ = s.client.Backup(ctx, s.target, engine.BackupOptions{}) // the journal has the error
	s.putReader(ctx, s.content(longStream), place)
	s.delete(ctx, gone)
	s.various(ctx)
	var meanwhile sync.WaitGroup
	meanwhile.Go(func() {
		s.put(ctx, s.content(3000), place)
		s.delete(ctx, late)
	})
	_ = s.client.Backup(ctx, s.target, engine.BackupOptions{Copy: true})
	meanwhile.Wait()
}

const doomedSession = "doomed"

// doomed stores a reference that shares a blob with one of another session.
func (s *script) doomed(ctx context.Context) (ref string) {
	both := s.content(2500)
	ref = s.put(ctx, both, Place{Session: doomedSession})
	s.put(ctx, both, Place{Session: "spared"})
	s.forget(ref)
	return ref
}

// Backup backs the store of a target up, beside it.
func (c *Client) Backup(ctx context.Context, target Target, opts engine.BackupOptions) error {
	n := c.Journal.Begin(Op{Kind: KindBackup})
	_, err := c.Store.Backup(ctx, target.beside(besideBackup).Dir, opts)
	c.Journal.End(n, "", err)
	return err
}

// Export writes all references into an archive.
func (c *Client) Export(ctx context.Context, to io.Writer) error {
	n := c.Journal.Begin(Op{Kind: KindExport})
	_, err := c.Store.Export(ctx, to, engine.Query{})
	c.Journal.End(n, "", err)
	return err
}

// Restore makes another store of the backup, beside the store. ErrCorrupted is that blobs
// of the backup could not be read: then it is whole without them.
func (t *Target) Restore(ctx context.Context, journal *Journal) error {
	n := journal.Begin(Op{Kind: KindRestore})
	_, err := t.restore(ctx)
	journal.End(n, "", err)
	return err
}

// RemoveRestored removes what was restored.
func (t *Target) RemoveRestored() error { return os.RemoveAll(t.beside(besideRestored).Dir) }

// restore makes another store of the backup beside the store of a target, without what was
// erased in that since.
func (t *Target) restore(ctx context.Context) (engine.Backup, error) {
	opts := engine.RestoreOptions{Config: t.config(engine.FileStoreConfig{EnableDeduplication: true}), Ledgers: []string{t.Dir}}
	return engine.Restore(ctx, t.beside(besideBackup).Dir, t.beside(besideRestored).Dir, opts)
}

// Import imports an archive into another store, beside the store.
func (t *Target) Import(ctx context.Context, journal *Journal, archive []byte) error {
	n := journal.Begin(Op{Kind: KindImport})
	err := t.load(ctx, archive)
	journal.End(n, "", err)
	return err
}

// load imports an archive into the store for that, and closes it.
func (t *Target) load(ctx context.Context, archive []byte) (err error) {
	into := t.beside(besideImported)
	f, err := into.open(ctx, engine.FileStoreConfig{EnableDeduplication: true})
	if err != nil {
		return err
	}
	_, err = f.Import(ctx, bytes.NewReader(archive))
	return closed(f, err)
}

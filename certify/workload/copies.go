package workload

import (
	"bytes"
	"context"
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
	_ = s.restore(ctx)
	return ctx.Err()
}

// RunImport is a workload of an export, and of its import into another store.
func RunImport(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	var archive bytes.Buffer
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, func(ctx context.Context) {
		s.various(ctx)
		s.putReader(ctx, s.content(longStream), Place{Session: "long"})
		n := s.journal.Begin(Op{Kind: KindExport})
		_, err := s.client.Store.Export(ctx, &archive, engine.Query{})
		s.journal.End(n, "", err)
	})
	_ = s.load(ctx, archive.Bytes())
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

// restore makes another store of the backup.
func (s *script) restore(ctx context.Context) error {
	n := s.journal.Begin(Op{Kind: KindRestore})
	_, err := s.target.restore(ctx)
	s.journal.End(n, "", err)
	return err
}

// restore makes another store of the backup beside the store of a target, without what was
// erased in that since.
func (t *Target) restore(ctx context.Context) (engine.Backup, error) {
	opts := engine.RestoreOptions{Config: t.config(engine.FileStoreConfig{EnableDeduplication: true}), Ledgers: []string{t.Dir}}
	return engine.Restore(ctx, t.beside(besideBackup).Dir, t.beside(besideRestored).Dir, opts)
}

// load imports an archive into another store.
func (s *script) load(ctx context.Context, archive []byte) error {
	n := s.journal.Begin(Op{Kind: KindImport})
	err := s.target.load(ctx, archive)
	s.journal.End(n, "", err)
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

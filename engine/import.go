package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/blobs"
	"github.com/mediabolt/mediabolt/storage"
)

// Imported is what an Import has done.
type Imported struct {
	References int64 // added
	Present    int64 // references that were there already
	Blobs      int64 // whose bytes were added
	Bytes      int64 // of all blobs in the archive
	// LeftOut are blobs that were damaged on the way. Their references were not
	// added. What the Export had left out is not in it.
	LeftOut []storage.Finding
}

// importWorkers is how many blobs are stored at a time, so that they share commits;
// each may hold inlineLimit bytes.
const importWorkers = 16

// Import adds what is in an archive that Export wrote, streamed from r. References
// keep their IDs, times, labels and all else; blobs are put into the directories
// of this store's organization. References that are there already are left alone,
// so that an import that was interrupted is finished by another one, and a second
// one adds nothing. Deduplicated blobs stay so, whatever the store's configuration.
//
// All bytes are verified as they come. A damaged blob is left out with its
// references, and Import ends with ErrCorrupted when the rest has been added. What
// ends it in the middle: ErrCorrupted for an archive that was cut short or damaged
// in its structure, naming the entry; ErrConflict for a reference whose ID is there
// with other content or metadata, naming it; ErrDiskSpace, as a *LimitError, for what a
// limit of the configuration has no room for; ErrVersion, ErrTooLarge, ErrDiskSpace,
// ErrPermission, ErrIO, ErrClosed, r's error, or ctx's. What was added before stays.
func (f *FileStore) Import(ctx context.Context, r io.Reader) (Imported, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return Imported{}, err
	}
	defer leave()
	done, err := s.importArchive(ctx, r)
	if err != nil {
		return done, fmt.Errorf("import into %s: %w", s.cfg.BaseDir, storage.Classify(err))
	}
	return done, leftOut("import into", s.cfg.BaseDir, done.LeftOut)
}

// importing is an Import under way.
type importing struct {
	ctx     context.Context
	stop    context.CancelCauseFunc
	s       *store
	in      *archiveReader
	slots   chan struct{}
	workers sync.WaitGroup

	read archiveEnd // what was read of the archive

	mu   sync.Mutex // guards done
	done Imported
}

func (s *store) importArchive(ctx context.Context, r io.Reader) (Imported, error) {
	ctx, stop := context.WithCancelCause(ctx)
	i := &importing{ctx: ctx, stop: stop, s: s, in: newArchiveReader(r), slots: make(chan struct{}, importWorkers)}
	err := i.run()
	i.workers.Wait()
	// Who failed first stopped the others.
	if cause := context.Cause(ctx); cause != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = cause
	}
	stop(nil)
	return i.done, err
}

func (i *importing) run() error {
	if _, err := i.in.begin(); err != nil {
		return err
	}
	header, err := i.in.next()
	for {
		switch {
		case err == io.EOF:
			return fmt.Errorf("%w: archive is cut short behind %q: import a whole copy of it; what was imported stays", storage.ErrCorrupted, i.in.name)
		case err != nil:
			return err
		case header.Name == archiveLast:
			return i.end(header)
		}
		if header, err = i.blob(header); err == nil && header == nil {
			header, err = i.in.next()
		}
	}
}

// end reads the last entry and compares it with what came before.
func (i *importing) end(header *tar.Header) error {
	var end archiveEnd
	if err := i.in.json(header, maxArchiveMeta, &end); err != nil {
		return err
	}
	if end.Blobs != i.read.Blobs || end.References != i.read.References || end.Bytes != i.read.Bytes {
		return fmt.Errorf("%w: archive has %d blobs of %d bytes with %d references, its entry %q says %d, %d and %d", storage.ErrCorrupted,
			i.read.Blobs, i.read.Bytes, i.read.References, archiveLast, end.Blobs, end.Bytes, end.References)
	}
	switch _, err := i.in.next(); {
	case err == nil:
		return fmt.Errorf("%w: archive entry %q comes behind the last, %q", storage.ErrCorrupted, i.in.name, archiveLast)
	case err != io.EOF:
		return err
	}
	return nil
}

// blob reads an entry of bytes and the sidecar behind it, and has them stored. It
// returns the header of the next entry if it had to read that.
func (i *importing) blob(header *tar.Header) (*tar.Header, error) {
	name := header.Name
	select {
	case i.slots <- struct{}{}:
	case <-i.ctx.Done():
		return nil, i.ctx.Err()
	}
	handed := false
	defer func() {
		if !handed {
			<-i.slots
		}
	}()
	begun := time.Now()
	p, err := i.s.fromReader(i.ctx, i.in, header.Size, i.s.anyTicket())
	if err != nil {
		if i.in.err != nil {
			return nil, i.in.err
		}
		i.s.watch.refused(time.Since(begun), err)
		return nil, fmt.Errorf("archive entry %q: %w", name, err)
	}
	in := &ingestion{payload: p}
	in.blob.AccessedAt = header.AccessTime
	next, err := i.sidecar(in, name)
	if err != nil || next != nil {
		return next, errors.Join(err, i.drop(p))
	}
	if err := in.checkBytes(); err != nil {
		i.leaveOut(in, err)
		return nil, i.drop(p)
	}
	handed = true
	i.workers.Go(func() {
		defer func() { <-i.slots }()
		i.store(in)
	})
	return nil, nil
}

// drop lets go of bytes that are not stored.
func (i *importing) drop(p *payload) error {
	defer p.free()
	return i.s.drop(i.ctx, p)
}

// sidecar reads what belongs to the bytes of an entry. It returns the header of the
// entry behind them if that is something else: then they were damaged when they
// were exported.
func (i *importing) sidecar(in *ingestion, name string) (*tar.Header, error) {
	header, err := i.in.next()
	switch {
	case err == io.EOF:
		return nil, fmt.Errorf("%w: archive is cut short behind %q: import a whole copy of it; what was imported stays", storage.ErrCorrupted, i.in.name)
	case err != nil:
		return nil, err
	case header.Name != name+blobs.MetaSuffix:
		return header, nil
	}
	accessed := in.blob.AccessedAt
	if in.blob, in.refs, err = i.in.sidecar(header, name); err != nil {
		return nil, err
	}
	if !accessed.IsZero() {
		in.blob.AccessedAt = accessed.UTC()
	}
	i.read.Blobs++
	i.read.References += int64(len(in.refs))
	i.read.Bytes += in.blob.Size
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("archive entry %q: %w", header.Name, err)
	}
	return nil, nil
}

// leaveOut notes a blob that is damaged.
func (i *importing) leaveOut(in *ingestion, damage error) {
	_, detail, _ := strings.Cut(damage.Error(), ": ")
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done.LeftOut = append(i.done.LeftOut, storage.Finding{
		Kind: storage.FindingChecksum, Severity: storage.SeverityDamage, Path: in.blob.Path, Blob: in.blob.Key.String(), Detail: detail,
	})
}

// store adds a blob and its references. A failure stops the import.
func (i *importing) store(in *ingestion) {
	defer in.payload.free()
	err := i.s.ingest(i.ctx, in)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done.References += in.added
	if err != nil {
		i.stop(fmt.Errorf("archive entry %q: %w", in.blob.Path, err))
		return
	}
	i.done.Present += int64(len(in.refs)) - in.added
	i.done.Bytes += in.blob.Size
	if in.fresh {
		i.done.Blobs++
	}
}

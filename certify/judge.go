package certify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// Names below a store's directory, for looking at it past the engine.
const (
	controlDir    = ".mediabolt"
	sidecarSuffix = ".meta"
)

// judge compares a store with a model, after which the model is as the store.
type judge struct {
	store *engine.FileStore
	dir   string
	model *model
	full  bool // read and verify everything, not only what has changed
	probe bool // the store was open with workload.ProbeQuota

	entries map[string]engine.Entry // by reference ID
	found   []Violation
	kinds   map[ViolationKind]int // how often, also what is not reported
}

// maxOfKind bounds what one judgement reports: one cause has many symptoms.
const maxOfKind = 5

func (j *judge) report(kind ViolationKind, format string, args ...any) {
	if j.kinds == nil {
		j.kinds = map[ViolationKind]int{}
	}
	if j.kinds[kind]++; j.kinds[kind] <= maxOfKind {
		j.found = append(j.found, Violation{Kind: kind, Detail: fmt.Sprintf(format, args...)})
	}
}

// open opens a store that may have crashed; took is how long that was. What
// keeps it from opening is a violation unless it is the machine's fault.
func open(ctx context.Context, config engine.FileStoreConfig) (store *engine.FileStore, took time.Duration, broken []Violation, err error) {
	begun := time.Now()
	store, err = engine.Open(ctx, config)
	if err != nil && ctx.Err() == nil && !hindered(err) {
		return nil, 0, []Violation{{Kind: ViolationOpen, Detail: err.Error()}}, nil
	}
	return store, time.Since(begun), nil, err
}

// run judges. Nobody else uses the store meanwhile. An error says that it could
// not be judged.
func (j *judge) run(ctx context.Context) ([]Violation, error) {
	for _, look := range []func(context.Context) error{j.resume, j.list, j.usage, j.holds, j.totals, j.read} {
		if err := look(ctx); err != nil {
			return nil, err
		}
	}
	j.erasures()
	j.scopes()
	j.quotas()
	if err := j.tree(); err != nil {
		return nil, err
	}
	if j.full {
		if err := j.verify(ctx); err != nil {
			return nil, err
		}
	}
	j.model.judged(j.full)
	return j.found, nil
}

// list compares the references, one by one, with the model.
func (j *judge) list(ctx context.Context) error {
	j.entries = make(map[string]engine.Entry, len(j.model.live))
	for e, err := range j.store.List(ctx, engine.Query{}) {
		if err != nil {
			return j.unlessBroken(ctx, ViolationCall, err)
		}
		p, broken := j.model.settle(e.Reference.ID, e.Metadata.Labels[labelOp])
		if broken != nil {
			j.report(broken.Kind, "%s", broken.Detail)
			continue
		}
		if differs := p.differs(&e); differs != "" {
			j.report(ViolationMetadata, "reference %s: %s", e.Reference.ID, differs)
		}
		j.entries[e.Reference.ID] = e
	}
	for id, p := range j.model.live {
		if _, there := j.entries[id]; !there {
			j.report(ViolationLost, "reference %s of operation %s, seed %d, was acknowledged and is gone", id, p.op, p.seed)
			delete(j.model.live, id)
		}
	}
	return nil
}

// totals compares refcounts and totals with the references that are listed.
func (j *judge) totals(ctx context.Context) error {
	refs := map[string]int64{} // by the path of a blob
	var want engine.Stats
	for _, e := range j.entries {
		if refs[e.Path]++; refs[e.Path] == 1 {
			want.Blobs++
			want.PhysicalBytes += e.Size
		}
		want.References++
		want.LogicalBytes += e.Size
	}
	for id, e := range j.entries {
		if e.Refs != refs[e.Path] {
			j.report(ViolationRefcount, "blob %s of reference %s: refcount %d, references %d", e.Path, id, e.Refs, refs[e.Path])
		}
	}
	got, err := j.store.Stats(ctx)
	if err != nil {
		return j.unlessBroken(ctx, ViolationTotals, err)
	}
	want.SavedBytes, want.IndexBytes = want.LogicalBytes-want.PhysicalBytes, got.IndexBytes
	got.Latencies = engine.Latencies{}
	if got != want {
		j.report(ViolationTotals, "totals %+v, want %+v", got, want)
	}
	return nil
}

// read compares bytes: all of them, or those of references that are new or
// share bytes with something that was deleted.
func (j *judge) read(ctx context.Context) error {
	for id := range j.entries {
		p := j.model.live[id]
		if !j.full && !j.model.changed[id] && !j.model.suspect[p.seed] {
			continue
		}
		if err := compare(ctx, j.store, id, p.seed); err != nil {
			if err := j.unlessBroken(ctx, ViolationBytes, err); err != nil {
				return err
			}
			continue
		}
		j.model.count.Read++
	}
	return nil
}

// tree looks, past the engine, for files that should not be there.
func (j *judge) tree() error {
	paths := map[string]bool{}
	for _, e := range j.entries {
		paths[e.Path] = true
	}
	err := filepath.WalkDir(j.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, err := filepath.Rel(j.dir, name)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		switch {
		case path == controlDir:
			return fs.SkipDir
		case !d.IsDir() && !paths[strings.TrimSuffix(path, sidecarSuffix)]:
			j.report(ViolationOrphan, "%s is the file of no reference", path)
		}
		return j.traceless(path, d.IsDir())
	})
	return err
}

func (j *judge) verify(ctx context.Context) error {
	for f, err := range j.store.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			return j.unlessBroken(ctx, ViolationVerify, err)
		}
		if f.Severity == storage.SeverityDamage {
			j.report(ViolationVerify, "%s %s%s%s: %s", f.Kind, f.Path, f.Ref, f.Blob, f.Detail)
		}
	}
	return nil
}

// unlessBroken is err if it proves nothing about the store, and otherwise nil
// after a report.
func (j *judge) unlessBroken(ctx context.Context, kind ViolationKind, err error) error {
	if ctx.Err() != nil || hindered(err) {
		return err
	}
	j.report(kind, "%v", err)
	return nil
}

// leftInStaging reports what lies in the staging directories of a store on
// which nobody works.
func leftInStaging(dir, when string) ([]Violation, error) {
	found, err := filepath.Glob(filepath.Join(dir, controlDir, "staging", "*", "*"))
	if err != nil {
		return nil, err
	}
	var broken []Violation
	for _, name := range found {
		broken = append(broken, Violation{Kind: ViolationStaging, Detail: name + " is there after " + when})
	}
	return broken, nil
}

// inspect opens a store that nobody has open, judges and closes it.
func inspect(ctx context.Context, config engine.FileStoreConfig, m *model, full bool) (took time.Duration, broken []Violation, err error) {
	config.Quota, config.MinFreeBytes = workload.ProbeQuota, 0
	store, took, broken, err := open(ctx, config)
	if store == nil {
		return took, broken, err
	}
	left, err := leftInStaging(config.BaseDir, "Open")
	if err == nil {
		j := &judge{store: store, dir: config.BaseDir, model: m, full: full, probe: true}
		broken, err = j.run(ctx)
	}
	broken = append(left, broken...)
	if failed := store.Close(); failed != nil && !hindered(failed) {
		broken = append(broken, Violation{Kind: ViolationCall, Detail: failed.Error()})
	} else {
		err = errors.Join(err, failed)
	}
	return took, broken, err
}

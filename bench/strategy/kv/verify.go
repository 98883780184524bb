package kv

import (
	"context"
	"fmt"
	"maps"

	"github.com/mediabolt/mediabolt/storage"
)

// Verify checks the rows against one another. It keeps numbers for every blob,
// session and user in memory.
func (x *Index) Verify(ctx context.Context) ([]storage.Finding, error) {
	a := &audit{ctx: ctx, refs: make(map[storage.BlobKey]int64), used: make(map[string]storage.Usage)}
	err := x.view(ctx, func(r Reader) error {
		for _, step := range [...]func(Reader) error{a.references, a.lists, a.blobs, a.mirrors, a.totals, a.usage} {
			if err := step(r); err != nil {
				return err
			}
		}
		return nil
	})
	return a.findings, err
}

// audit is one run of Verify, on one state.
type audit struct {
	ctx      context.Context
	findings []storage.Finding
	sum      storage.Counters
	refs     map[storage.BlobKey]int64 // references of each blob
	members  int64                     // entries that the lists should have
	used     map[string]storage.Usage  // of each session and user, by the beginning of its keys
}

func (a *audit) report(f storage.Finding) {
	f.Severity = storage.SeverityDamage
	a.findings = append(a.findings, f)
}

// rows goes through a table as long as there is no error.
func (a *audit) rows(r Reader, table Table, fn func(Row) error) error {
	for row, err := range r.From(table, nil) {
		if err == nil {
			err = a.ctx.Err()
		}
		if err == nil {
			err = fn(row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *audit) references(r Reader) error {
	return a.rows(r, Refs, func(row Row) error {
		id := storage.UUID(row.Key)
		ref, blob, err := readPair(r, id, row.Value)
		if err != nil {
			a.report(storage.Finding{Kind: storage.FindingDangling, Ref: id.String(), Detail: err.Error()})
			return nil
		}
		a.refs[ref.Blob]++
		a.sum.CountRef(&ref.Metadata, blob.Size, 1)
		for _, k := range usageKinds {
			if id := k.kind.Of(&ref.Metadata); id != "" {
				key := string(usagePrefix(k.prefix, id))
				a.used[key] = storage.Usage{Refs: a.used[key].Refs + 1, Bytes: a.used[key].Bytes + blob.Size}
			}
		}
		for _, m := range memberships(blob.ListedDigest(id), &ref) {
			a.members++
			if _, found, err := r.Get(m.table, m.key(id)); err != nil {
				return err
			} else if !found {
				a.report(storage.Finding{Kind: storage.FindingDangling, Ref: id.String(),
					Detail: fmt.Sprintf("reference is not in the list %d of %q", m.table, m.of)})
			}
		}
		return nil
	})
}

// lists counts what the lists hold: with every reference in its lists, as many as
// the references should have leave none that is of no reference.
func (a *audit) lists(r Reader) error {
	var entries int64
	for _, table := range [...]Table{BySession, ByConversation, ByRun, ByUser, ByDigest, ByExpiry} {
		if err := a.rows(r, table, func(Row) error { entries++; return nil }); err != nil {
			return err
		}
	}
	if entries != a.members {
		a.report(storage.Finding{Kind: storage.FindingDangling,
			Detail: fmt.Sprintf("lists have %d entries, the reference rows %d", entries, a.members)})
	}
	return nil
}

func (a *audit) blobs(r Reader) error {
	return a.rows(r, Blobs, func(row Row) error {
		key := storage.BlobKey(row.Key)
		blob, err := DecodeBlob(key, row.Value)
		if err != nil {
			a.report(storage.Finding{Kind: storage.FindingIndex, Blob: key.String(), Detail: err.Error()})
			return nil
		}
		a.sum.Blobs++
		a.sum.PhysicalBytes += blob.Size
		if a.refs[key] != blob.Refs {
			a.report(storage.Finding{Kind: storage.FindingRefcount, Path: blob.Path, Blob: key.String(),
				Detail: fmt.Sprintf("refcount %d, but %d reference rows", blob.Refs, a.refs[key])})
		}
		return nil
	})
}

func (a *audit) mirrors(r Reader) error {
	return a.rows(r, Mirrors, func(row Row) error {
		if _, err := storage.ParseMirror(row.Key, storage.BlobKey(row.Value)); err != nil {
			a.report(storage.Finding{Kind: storage.FindingIndex, Detail: err.Error()})
		}
		return nil
	})
}

func (a *audit) totals(r Reader) error {
	kept, err := allTotals(r)
	if err == nil && kept != a.sum {
		a.report(storage.Finding{Kind: storage.FindingCounter, Detail: fmt.Sprintf("totals %+v, the rows add up to %+v", kept, a.sum)})
	}
	return err
}

func (a *audit) usage(r Reader) error {
	kept := make(map[string]storage.Usage, len(a.used))
	err := a.rows(r, Use, func(row Row) error {
		part, err := decodeUsage(row.Value)
		if err == nil {
			key := string(row.Key[:len(row.Key)-1])
			kept[key] = storage.Usage{Refs: kept[key].Refs + part.Refs, Bytes: kept[key].Bytes + part.Bytes}
		}
		return err
	})
	maps.DeleteFunc(kept, func(_ string, u storage.Usage) bool { return u == storage.Usage{} })
	if err == nil && !maps.Equal(kept, a.used) {
		a.report(storage.Finding{Kind: storage.FindingCounter,
			Detail: fmt.Sprintf("usage of %d sessions and users is not that of the references, which have %d", len(kept), len(a.used))})
	}
	return err
}

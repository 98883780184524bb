package workload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// RunRebuild is a workload in which the index is lost once and damaged once, and
// rebuilt each time, so short that it can be cut after each of its events.
func RunRebuild(ctx context.Context, target Target, seed uint64, journal *Journal) error {
	s := newScript(target, seed, journal)
	s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.various)
	for _, lose := range []func(*Journal) error{target.LoseIndex, target.DamageIndex} {
		_ = lose(journal) // which has the error
		_ = target.Rebuild(ctx, journal)
		s.session(ctx, engine.FileStoreConfig{EnableDeduplication: true}, s.various)
	}
	return ctx.Err()
}

// various leaves references of every kind: with holds and policies, alone and sharing a
// blob, some of them deleted.
func (s *script) various(ctx context.Context) {
	place := Place{Session: "various", Conversation: "conversation", Run: "run"}
	later := place
	later.Policy = policyFuture
	shared := s.content(3000)
	first := s.put(ctx, shared, place)
	s.put(ctx, shared, later)
	s.put(ctx, shared, Place{})
	s.put(ctx, s.content(2000), later)
	changed := s.put(ctx, s.content(1000), place)
	s.change(ctx, changed, policyFuture)
	gone := s.put(ctx, s.content(1000), place)
	s.delete(ctx, gone)
	s.delete(ctx, first)
	_ = s.client.Hold(ctx, Held{"of " + changed, engine.HoldTarget{Kind: engine.HoldReference, ID: changed}})
}

// LoseIndex removes all of the index of the store, which is closed, durably.
func (t *Target) LoseIndex(journal *Journal) error { return t.lose(journal, removeIndex) }

// DamageIndex damages the index of the store, which is closed, durably. Its log stays.
func (t *Target) DamageIndex(journal *Journal) error { return t.lose(journal, damageIndex) }

func (t *Target) lose(journal *Journal, do func(index string) error) error {
	n := journal.Begin(Op{Kind: KindLose})
	index := filepath.Join(t.Dir, layout.Dir, indexFile)
	err := errors.Join(do(index), syncPath(filepath.Dir(index)))
	digest, e := digestOf(index)
	if !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	journal.endLose(n, digest, err)
	return err
}

// ErrDamage is that a Rebuild has found damage.
var ErrDamage = errors.New("the rebuild has found damage")

// Rebuild makes the index of the store, which is closed, anew. Damage that it finds is
// ErrDamage.
func (t *Target) Rebuild(ctx context.Context, journal *Journal) error {
	n := journal.Begin(Op{Kind: KindRebuild})
	var first *storage.Finding
	result, err := engine.Rebuild(ctx, t.config(engine.FileStoreConfig{EnableDeduplication: true}), engine.RebuildOptions{
		Deep: true, Found: func(f storage.Finding) {
			if first == nil && f.Severity == storage.SeverityDamage {
				first = &f
			}
		},
	})
	if err == nil && first != nil {
		err = fmt.Errorf("%w: %d findings, the first: %s %s: %s", ErrDamage, result.Damaged, first.Kind, first.Path, first.Detail)
	}
	journal.End(n, "", err)
	return err
}

// endLose is End for a lose.
func (j *Journal) endLose(number uint64, digest string, err error) {
	j.mu.Lock()
	j.ops[number-1].Digest = digest
	j.mu.Unlock()
	j.End(number, "", err)
}

// indexFile is the name of the index's file in the control directory, asidePrefix what the
// names of directories begin with in which a rebuild leaves the one that it has replaced.
const (
	indexFile   = "index.db"
	asidePrefix = "index.damaged-"
)

// removeIndex removes an index with its sums and its log.
func removeIndex(name string) error {
	err := os.Remove(name)
	for _, other := range []string{"index.sums", "log.0", "log.1"} {
		err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(name), other)))
	}
	return err
}

// damageIndex makes both meta pages unreadable, durably.
func damageIndex(name string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, page := range []int64{0, int64(os.Getpagesize())} {
		const inMeta = 40 // bytes behind the beginning of the page
		if _, err := f.WriteAt([]byte("damaged"), page+inMeta); err != nil {
			return err
		}
	}
	return f.Sync()
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func digestOf(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// lost says whether the index may be lost or damaged, so that the opening has to
// rebuild it.
func (j *judge) lost() (lost bool) {
	for i := range j.ops {
		switch op := &j.ops[i]; {
		case op.Kind == KindLose:
			lost = true
		case op.Kind == KindRebuild && op.Outcome == OutcomeAcknowledged:
			lost = false
		}
	}
	return lost
}

// isAside says whether a name in the control directory is that of an index which a
// rebuild has set aside, as it may where one was lost.
func (j *judge) isAside(name string) bool {
	for i := range j.ops {
		if j.ops[i].Kind == KindLose && strings.HasPrefix(name, asidePrefix) {
			return true
		}
	}
	return false
}

// setAside requires that every index that was damaged is still there, as it was.
func (j *judge) setAside() {
	there := map[string]bool{}
	names, err := filepath.Glob(filepath.Join(j.target.Dir, layout.Dir, asidePrefix+"*", indexFile))
	for _, name := range names {
		digest, e := digestOf(name)
		err = errors.Join(err, e)
		there[digest] = true
	}
	if err != nil {
		j.add("a damaged index is set aside", 0, "", "%v", err)
	}
	for i := range j.ops {
		if op := &j.ops[i]; op.Kind == KindLose && op.Outcome == OutcomeAcknowledged && op.Digest != "" && !there[op.Digest] {
			j.add("a damaged index is set aside", op.Number, "", "none of %s has the SHA-256 %s", path.Join(layout.Dir, asidePrefix+"*", indexFile), op.Digest)
		}
	}
}

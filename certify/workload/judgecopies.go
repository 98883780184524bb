package workload

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// isCopy says whether an operation is about another store, made of this one.
func (o *Op) isCopy() bool {
	return o.Kind == KindBackup || o.Kind == KindRestore || o.Kind == KindExport || o.Kind == KindImport
}

// at is a journal of what a copy holds that an operation has made: what had ended before
// that began is in it, what was under way may be, what began later is not. Of an operation
// that has not ended, that is none. Erasures are honoured where honoured says so.
func (j *Journal) at(copy *Op, honoured func(*Op) bool) *Journal {
	view := NewJournal(nil, nil)
	for _, op := range j.Ops() {
		switch {
		case op.isCopy(), copy.Ended != 0 && op.Begun >= copy.Ended && !honoured(&op):
			op = Op{Number: op.Number, Outcome: OutcomeFailed}
		case op.Ended > copy.Begun && op.Outcome == OutcomeAcknowledged && !honoured(&op):
			op.Outcome = OutcomeInFlight
		}
		view.ops = append(view.ops, op)
	}
	return view
}

func none(*Op) bool { return false }

// erasing says whether an operation is an erasure or a part of one.
func erasing(o *Op) bool { return o.Kind == KindErase || o.Part != 0 }

// withoutHolds is the journal of a store into which what this one has was imported.
func withoutHolds(j *Journal) *Journal {
	view := NewJournal(nil, nil)
	for _, op := range j.Ops() {
		if op.Kind == KindHold || op.Kind == KindRelease || op.Kind == KindRefused {
			op = Op{Number: op.Number, Outcome: OutcomeFailed}
		}
		view.ops = append(view.ops, op)
	}
	return view
}

// maybe is the journal with every store as one that may have happened.
func (j *Journal) maybe() *Journal {
	view := NewJournal(nil, nil)
	for _, op := range j.Ops() {
		if op.isStore() && op.Outcome == OutcomeAcknowledged {
			op.Outcome = OutcomeInFlight
		}
		view.ops = append(view.ops, op)
	}
	return view
}

// last are the last acknowledged operation of a kind, and one after it that failed or was
// under way; nil where there is none.
func (j *judge) last(kind Kind) (made, tried *Op) {
	for i := range j.ops {
		switch op := &j.ops[i]; {
		case op.Kind != kind:
		case op.Outcome == OutcomeAcknowledged:
			made, tried = op, nil
		default:
			tried = op
		}
	}
	return made, tried
}

// present is what a copy holds that is made by the judge.
func (j *judge) present() *Journal {
	end := Op{Begun: j.now()}
	return j.journal.at(&end, none)
}

// copies judges what was made of the store: what was acknowledged is whole, what was not is
// refused, is what was there before, or is whole; and another attempt makes it whole.
func (j *judge) copies(ctx context.Context) {
	made, tried := j.last(KindBackup)
	if made == nil && tried == nil {
		j.imported(ctx)
		return
	}
	backup := j.target.beside(besideBackup)
	var may []*Journal
	for _, op := range []*Op{made, tried} {
		if op != nil {
			may = append(may, j.journal.at(op, none))
		}
	}
	j.whole(ctx, "backup", backup, tried, may...)
	j.restored(ctx, made)
	if err := j.backUp(ctx, backup.Dir); err != nil {
		j.add("a backup that was interrupted goes on", 0, "", "%v", err)
		return
	}
	j.whole(ctx, "backup after another one", backup, nil, j.present())
}

func (j *judge) backUp(ctx context.Context, dest string) error {
	f, err := j.open(ctx)
	if err != nil {
		return err
	}
	_, err = f.Backup(ctx, dest, engine.BackupOptions{})
	return closed(f, err)
}

// restored judges what was made of a backup.
func (j *judge) restored(ctx context.Context, backup *Op) {
	made, tried := j.last(KindRestore)
	if made == nil && tried == nil {
		return
	}
	restored, holds := j.target.beside(besideRestored), j.journal.at(backup, erasing)
	if there := j.whole(ctx, "restored store", restored, tried, holds); there || made != nil {
		return
	}
	if _, err := j.target.restore(ctx); err != nil {
		j.add("a restore that was interrupted goes on", 0, "", "%v", err)
		return
	}
	j.whole(ctx, "restored store after another restore", restored, nil, holds)
}

// imported judges what was made of an archive. What an import that was interrupted has
// added stays. Holds are not in archives.
func (j *judge) imported(ctx context.Context) {
	made, tried := j.last(KindImport)
	if made == nil && tried == nil {
		return
	}
	exported, _ := j.last(KindExport)
	imported, archived := j.target.beside(besideImported), withoutHolds(j.journal.at(exported, none))
	if made == nil {
		archived = archived.maybe()
	} else {
		tried = nil // adds what is there
	}
	j.whole(ctx, "store that was imported into", imported, tried, archived)
	var archive bytes.Buffer
	f, err := j.open(ctx)
	if err == nil {
		_, err = f.Export(ctx, &archive, engine.Query{})
		err = closed(f, err)
	}
	if err == nil {
		err = j.target.load(ctx, archive.Bytes())
	}
	if err != nil {
		j.add("an import that was interrupted goes on", 0, "", "%v", err)
		return
	}
	j.whole(ctx, "store after another import", imported, nil, withoutHolds(j.present()))
}

// whole judges a store against the journals of which it may be one, and says whether it
// is there at all. Where an attempt to make it was not acknowledged, it need not be.
func (j *judge) whole(ctx context.Context, what string, target Target, tried *Op, may ...*Journal) (there bool) {
	if tried != nil {
		switch f, err := target.open(ctx, engine.FileStoreConfig{NoCreate: true}); {
		case err == nil:
			if err := f.Close(); err != nil {
				j.add("what is made of a store closes", tried.Number, "", "%s: %v", what, err)
			}
		case len(may) == 1 && errors.Is(err, storage.ErrNoStore):
			return false
		case errors.Is(err, storage.ErrCorrupted) && strings.Contains(err.Error(), "was not finished"):
			return false
		default:
			j.add("what was interrupted is refused and says how to go on", tried.Number, "", "%s: %v", what, err)
			return false
		}
	}
	var found []Violation
	for i, journal := range may {
		verdict, err := Judge(ctx, target, journal)
		if err != nil {
			return false
		}
		found = verdict.Violations
		if i < len(may)-1 { // there is an attempt to replace it
			found = slices.DeleteFunc(found, added)
		}
		if len(found) == 0 {
			return true
		}
	}
	for _, v := range found {
		v.Detail = what + ": " + v.Detail
		j.verdict.Violations = append(j.verdict.Violations, v)
	}
	return true
}

// added says whether a violation is of what a backup adds that has not come to its end: an
// index of its own, a marker, and files of blobs that the earlier one does not name.
func added(v Violation) bool {
	switch v.Promise {
	case "nothing is left over":
		return strings.Contains(v.Detail, "/backup.new/") || strings.Contains(v.Detail, "/backup.json.tmp ")
	case "the verification finds nothing":
		return strings.HasPrefix(v.Detail, string(storage.FindingOrphan))
	}
	return v.Promise == "no file is without a row"
}

// closed is an error of a store that is closed then, or that of its closing.
func closed(f *engine.FileStore, err error) error { return errors.Join(err, f.Close()) }

// isMarker says whether a name in the control directory is one that a backup has there.
func (j *judge) isMarker(name string) bool {
	return strings.HasSuffix(j.target.Dir, besideBackup) && (name == "backup.json" || name == "backup.lock")
}

package engine

import "context"

// faultPoint is a place between two steps of a protocol where a test can stop
// a store as a crash would.
type faultPoint string

const (
	faultStaged    faultPoint = "staged"    // bytes written, nothing durable
	faultCommitted faultPoint = "committed" // row durable, not published
	faultPublished faultPoint = "published" // final file there, no sidecar line
	faultRemoved   faultPoint = "removed"   // a deletion committed, files still there
	faultSettled   faultPoint = "settled"   // files durable, debt not dropped
	faultLinked    faultPoint = "linked"    // a blob's file has its new path durably, its row the old one
	faultMoved     faultPoint = "moved"     // its row has the new one, which has no sidecar

	faultNoted   faultPoint = "noted"   // a repair's manifest has a line, the file is in its place
	faultAside   faultPoint = "aside"   // the file is in quarantine, nothing in its place
	faultClaimed faultPoint = "claimed" // a copy is staged for a blob whose file is in quarantine
	faultWritten faultPoint = "written" // a new sidecar is there, the manifest does not say so
	faultLost    faultPoint = "lost"    // the manifest has the references that are lost, they still stand

	// Of a rebuild; replace.go has the steps.
	faultRestored faultPoint = "restored"  // one blob is in the new index
	faultRebuilt  faultPoint = "rebuilt"   // the new index is whole and durable
	faultSetAside faultPoint = "set aside" // one file of the old index linked, or removed
	faultPlaced   faultPoint = "placed"    // one file of the new index in place
	faultReplaced faultPoint = "replaced"  // all of them are

	faultCopied    faultPoint = "copied"    // some copies of a backup are in place
	faultCollected faultPoint = "collected" // all files of a backup are, the earlier one still shows
	faultTurning   faultPoint = "turning"   // sidecars too, the earlier index still in place
	faultTurned    faultPoint = "turned"    // the new one in place, not marked as whole
)

// faultPoints is called at each of them; nil outside tests. An error makes the
// call return at once, and leave everything as it is.
type faultPoints func(context.Context, faultPoint) error

func (f faultPoints) reach(ctx context.Context, p faultPoint) error {
	if f == nil {
		return nil
	}
	return f(ctx, p)
}

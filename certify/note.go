package certify

import (
	"fmt"
	"strconv"
	"strings"
)

// verb says what a note is about.
type verb string

// A note is one line: the verb and its words, apart by spaces.
const (
	verbReady    verb = "ready"    // the store is open
	verbStore    verb = "store"    // OP SEED, before a Store of what content(SEED) is
	verbStored   verb = "stored"   // OP ID, after it
	verbRefused  verb = "refused"  // OP, after a Store or Delete that returned an error and must have changed nothing
	verbDelete   verb = "delete"   // OP ID, before a Delete
	verbDeleted  verb = "deleted"  // OP, after it
	verbUnsure   verb = "unsure"   // OP, after a deletion that returned an error and may have happened
	verbLimited  verb = "limited"  // OP, after a Store that a quota or free space has refused
	verbHold     verb = "hold"     // OP TARGET NAME, before a Hold
	verbHeld     verb = "held"     // OP, after it
	verbRelease  verb = "release"  // OP TARGET NAME, before a Release
	verbReleased verb = "released" // OP, after it
	verbSpared   verb = "spared"   // after a deletion that a hold has refused
	verbErase    verb = "erase"    // OP DOSSIER ID…, before an Erase of these and, unless DOSSIER is "-", so of all that is in that
	verbErased   verb = "erased"   // OP, after it, or once it is decided and will be done by whoever resumes it
	verbRead     verb = "read"     // after a read whose bytes were right
	verbBroken   verb = "broken"   // TEXT, a promise was broken
	verbHindered verb = "hindered" // TEXT, the machine does not let the work go on
	verbClosed   verb = "closed"   // the store was closed and the work is over
)

// note is one thing that a crew tells whoever keeps its model.
type note struct {
	verb verb
	op   string // ROUND.NUMBER, and /DOSSIER where the piece is in one
	seed uint64
	id   string // of a reference
	hold hold
	ids  []string // of references
	// dossier is what is erased wholly, or noDossier.
	dossier string
	text    string
}

// noDossier stands in a note for none.
const noDossier = "-"

// ends are the verbs of how an operation ended, but for that of a Store that has left
// a reference.
var ends = map[verb]bool{
	verbRefused: true, verbDeleted: true, verbUnsure: true, verbLimited: true, verbHeld: true, verbReleased: true, verbErased: true,
}

// String is the note as a line, without its end.
func (n note) String() string {
	switch n.verb {
	case verbStore:
		return fmt.Sprintf("%s %s %d", n.verb, n.op, n.seed)
	case verbStored, verbDelete:
		return fmt.Sprintf("%s %s %s", n.verb, n.op, n.id)
	case verbHold, verbRelease:
		return fmt.Sprintf("%s %s %s %s", n.verb, n.op, n.hold.target, n.hold.name)
	case verbErase:
		return strings.Join(append([]string{string(n.verb), n.op, n.dossier}, n.ids...), " ")
	case verbBroken, verbHindered:
		return fmt.Sprintf("%s %s", n.verb, strings.Join(strings.Fields(n.text), " "))
	}
	if ends[n.verb] {
		return fmt.Sprintf("%s %s", n.verb, n.op)
	}
	return string(n.verb)
}

// parseNote reads what String wrote.
func parseNote(line string) (note, error) {
	first, rest, _ := strings.Cut(line, " ")
	words := strings.Fields(rest)
	n := note{verb: verb(first)}
	var err error
	switch {
	case (n.verb == verbReady || n.verb == verbRead || n.verb == verbSpared || n.verb == verbClosed) && len(words) == 0:
	case n.verb == verbStore && len(words) == 2:
		n.op = words[0]
		n.seed, err = strconv.ParseUint(words[1], 10, 64)
	case (n.verb == verbStored || n.verb == verbDelete) && len(words) == 2:
		n.op, n.id = words[0], words[1]
	case (n.verb == verbHold || n.verb == verbRelease) && len(words) == 3:
		n.op, n.hold = words[0], hold{target: words[1], name: words[2]}
	case n.verb == verbErase && len(words) >= 2:
		n.op, n.dossier, n.ids = words[0], words[1], words[2:]
	case ends[n.verb] && len(words) == 1:
		n.op = words[0]
	case n.verb == verbBroken || n.verb == verbHindered:
		n.text = rest
	default:
		err = fmt.Errorf("%d words", len(words))
	}
	if err != nil {
		return note{}, fmt.Errorf("note %.200q: %w", line, err)
	}
	return n, nil
}

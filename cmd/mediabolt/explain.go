package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain ID",
		Short: "Say why something is kept, until when, and by whom else",
		Long: `Say why what was stored under an ID is kept: its retention policy, the holds on it,
the other references that share its bytes, and what deleting it now would do.
'mediabolt refs' lists who shares the bytes.`,
		Example: `  mediabolt explain ID
  mediabolt explain --json ID | jq -r .deletion`,
		Args:              exactly(1, "ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withExisting(ctx, func(store *engine.FileStore) error {
				x, err := store.Explain(ctx, &storage.StorageReference{ID: args[0]})
				if err != nil {
					return &itemError{err, args[0]}
				}
				return a.printExplanation(&x)
			})
		},
	}
}

// explainRecord is what explain prints in JSON.
type explainRecord struct {
	ID          string        `json:"id"`
	PolicyName  string        `json:"policy_name"` // empty: none
	ExpiresAt   *time.Time    `json:"expires_at"`  // null: never
	Due         bool          `json:"due"`         // its time is over
	Holds       []engine.Hold `json:"holds"`
	Others      int64         `json:"others"` // references that share the bytes
	Longest     *entryRecord  `json:"longest"`
	LongestHeld bool          `json:"longest_held"`
	BytesUntil  *time.Time    `json:"bytes_until"` // null: for ever, or until a hold is released
	Deletion    string        `json:"deletion"`
}

func (a *app) printExplanation(x *engine.Explanation) error {
	if !a.asJSON {
		return a.printPairs(explained(x))
	}
	r := explainRecord{
		ID: x.Entry.Reference.ID, PolicyName: x.Entry.Metadata.Policy, ExpiresAt: orNull(x.Entry.ExpiresAt), Due: x.Due,
		Holds: append([]engine.Hold{}, x.Holds...), Others: x.Others, LongestHeld: x.LongestHeld,
		BytesUntil: orNull(x.BytesUntil), Deletion: string(x.Deletion),
	}
	if x.Longest != nil {
		longest := recordOf(x.Longest)
		r.Longest = &longest
	}
	return a.printJSON(r)
}

// deletions says what a deletion would do.
var deletions = map[engine.Deletion]string{
	engine.DeletionRefused:    "is refused because of the hold",
	engine.DeletionCounts:     "takes one from its count",
	engine.DeletionKeepsBytes: "ends it; others keep the bytes",
	engine.DeletionFreesBytes: "ends it, and its bytes are gone",
}

// explained is an explanation for people.
func explained(x *engine.Explanation) [][2]string {
	kept := until(x.Entry.ExpiresAt)
	if x.Due {
		kept = "its time is over since " + moment(x.Entry.ExpiresAt) + "; the next 'mediabolt expire' ends it"
	}
	if x.Due && len(x.Holds) > 0 {
		kept = "its time is over since " + moment(x.Entry.ExpiresAt) + "; a hold keeps it"
	}
	policy := x.Entry.Metadata.Policy
	if policy == "" {
		policy = "none, which keeps for ever"
	}
	rows := [][2]string{{"id", x.Entry.Reference.ID}, {"policy", policy}, {"kept", kept}}
	for _, h := range x.Holds {
		row := [2]string{"held", fmt.Sprintf("%q on %s %q since %s", h.Name, h.Target.Kind, h.Target.ID, moment(h.At))}
		if h.Reason != "" {
			row[1] += ": " + h.Reason
		}
		rows = append(rows, row)
	}
	others := "the bytes with no other reference"
	if x.Longest != nil {
		others = fmt.Sprintf("the bytes with %s; ", counted(x.Others, "other reference"))
		if x.LongestHeld {
			others += x.Longest.Reference.ID + " is held and keeps them"
		} else {
			others += "the longest, " + x.Longest.Reference.ID + ", keeps them " + until(x.Longest.ExpiresAt)
		}
	}
	bytes := until(x.BytesUntil)
	if x.BytesUntil.IsZero() && (len(x.Holds) > 0 || x.LongestHeld) {
		bytes = "as long as they are held"
	}
	return append(rows, [2]string{"shared", others}, [2]string{"bytes", "stay " + bytes}, [2]string{"deletion", deletions[x.Deletion]})
}

package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/mediabolt/mediabolt/storage"
)

// UsageKind says what Usage groups references by.
type UsageKind string

// The kinds of groups.
const (
	UsageBySession      UsageKind = "session"
	UsageByConversation UsageKind = "conversation"
	UsageByRun          UsageKind = "run"
	UsageByUser         UsageKind = "user"
	UsageByType         UsageKind = "type"
)

// UsageKinds are all of them.
func UsageKinds() []UsageKind {
	return []UsageKind{UsageBySession, UsageByConversation, UsageByRun, UsageByUser, UsageByType}
}

// usageIDs are the kinds of ID that some of them go by.
var usageIDs = map[UsageKind]storage.IDKind{
	UsageBySession: storage.SessionIDs, UsageByConversation: storage.ConversationIDs, UsageByRun: storage.RunIDs, UsageByUser: storage.UserIDs,
}

// Usage is what a group of references takes. Sizes are in bytes.
type Usage struct {
	Group          string // the ID or type; empty: of those that have none
	References     int64
	LogicalBytes   int64 // sum over the references
	ExclusiveBytes int64 // of blobs that only this group refers to
	SharedBytes    int64 // of blobs that others refer to as well
}

// PhysicalBytes are those of all blobs that the group refers to.
func (u *Usage) PhysicalBytes() int64 { return u.ExclusiveBytes + u.SharedBytes }

// UsageReport is what a store holds, by groups.
type UsageReport struct {
	By     UsageKind
	Groups []Usage // in order of Group
	// Total is that of the store: ExclusiveBytes are the sum over the groups, and
	// SharedBytes those of the blobs that several groups share, each once.
	Total Usage
}

// Usage tells how much each session, conversation, run, user or type of media
// takes. It reads every reference in the index, group by group, and no file, and
// needs memory for the groups and for the shared blobs of one. What is stored or
// deleted meanwhile may or may not be in it; a blob that is shared by more or by
// fewer meanwhile may count as exclusive, shared, or both. Errors: ErrInvalidQuery
// for another kind, ErrCorrupted, ErrClosed, or ctx's.
func (f *FileStore) Usage(ctx context.Context, by UsageKind) (UsageReport, error) {
	kind, byID := usageIDs[by]
	r := UsageReport{By: by}
	var err error
	switch {
	case byID:
		r.Groups, err = f.usageByID(ctx, by, kind)
	case by == UsageByType:
		r.Groups, err = f.tally(ctx, &Query{}, func(p *storage.RefPair) (string, bool) { return p.Ref.Type, true })
	default:
		err = fmt.Errorf("%w: usage by %q: want session, conversation, run, user or type", storage.ErrInvalidQuery, string(by))
	}
	var stats Stats
	if err == nil {
		stats, err = f.Stats(ctx)
	}
	if err != nil {
		return UsageReport{}, fmt.Errorf("usage of %s: %w", f.dir(), err)
	}
	slices.SortFunc(r.Groups, func(a, b Usage) int { return cmp.Compare(a.Group, b.Group) })
	r.Total = Usage{References: stats.References, LogicalBytes: stats.LogicalBytes}
	for i := range r.Groups {
		r.Total.ExclusiveBytes += r.Groups[i].ExclusiveBytes
	}
	r.Total.SharedBytes = max(0, stats.PhysicalBytes-r.Total.ExclusiveBytes)
	return r, nil
}

// UsageOf tells how much one session, conversation, run, user or type of media
// takes. It reads the list of the ID and nothing else, except that for a type, and
// for the empty group, it looks at every reference. A group without references
// takes nothing. Errors are as with Usage.
func (f *FileStore) UsageOf(ctx context.Context, by UsageKind, group string) (Usage, error) {
	q, of, err := usageQuery(by, group)
	var groups []Usage
	if err == nil {
		groups, err = f.tally(ctx, q, func(p *storage.RefPair) (string, bool) { return group, of(p) == group })
	}
	switch {
	case err != nil:
		return Usage{}, fmt.Errorf("usage of %s %q in %s: %w", by, group, f.dir(), err)
	case len(groups) == 0:
		return Usage{Group: group}, nil
	}
	return groups[0], nil
}

// usageQuery lists what a group has, and perhaps others, which of tells apart.
func usageQuery(by UsageKind, group string) (q *Query, of func(*storage.RefPair) string, err error) {
	switch by {
	case UsageBySession:
		q = &Query{SessionID: group}
	case UsageByConversation:
		q = &Query{ConversationID: group}
	case UsageByRun:
		q = &Query{RunID: group}
	case UsageByUser:
		q = &Query{UserID: group}
	case UsageByType:
		return &Query{Type: group}, func(p *storage.RefPair) string { return p.Ref.Type }, nil
	default:
		return nil, nil, fmt.Errorf("%w: usage by %q: want session, conversation, run, user or type", storage.ErrInvalidQuery, string(by))
	}
	kind := usageIDs[by]
	return q, func(p *storage.RefPair) string { return kind.Of(&p.Ref.Metadata) }, nil
}

// usagePage is how many IDs Usage reads at a time.
const usagePage = 256

// usageByID goes from ID to ID. What has none is looked for only where the groups
// do not make up the whole.
func (f *FileStore) usageByID(ctx context.Context, by UsageKind, kind storage.IDKind) (groups []Usage, err error) {
	left, err := f.Stats(ctx)
	if err != nil {
		return nil, err
	}
	for after, more := "", true; more; {
		page, err := f.idPage(ctx, kind, after)
		if err != nil {
			return nil, err
		}
		for _, id := range page {
			u, err := f.UsageOf(ctx, by, id)
			if err != nil {
				return nil, err
			}
			if u.References > 0 {
				groups = append(groups, u)
			}
			left.References -= u.References
			after = id
		}
		more = len(page) == usagePage
	}
	if left.References <= 0 {
		return groups, nil
	}
	u, err := f.UsageOf(ctx, by, "")
	if err == nil && u.References > 0 {
		groups = append(groups, u)
	}
	return groups, err
}

func (f *FileStore) idPage(ctx context.Context, kind storage.IDKind, after string) ([]string, error) {
	s, leave, err := f.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.index.IDs(ctx, kind, after, usagePage)
}

// sharing is a blob with several references, and how many of them a group has.
type sharing struct {
	seen, refs, size int64
}

// tally adds up what a query lists, by groups. of is the group of a reference, and
// whether it is to be counted.
func (f *FileStore) tally(ctx context.Context, q *Query, of func(*storage.RefPair) (group string, counts bool)) ([]Usage, error) {
	type place struct {
		group string
		blob  storage.BlobKey
	}
	groups := map[string]*Usage{}
	shared := map[place]sharing{}
	for p, err := range f.pairs(ctx, q) {
		if err != nil {
			return nil, err
		}
		group, counts := of(&p)
		if !counts {
			continue
		}
		u := groups[group]
		if u == nil {
			u = &Usage{Group: group}
			groups[group] = u
		}
		u.References++
		u.LogicalBytes += p.Blob.Size
		at := place{group, p.Blob.Key}
		if known, again := shared[at]; again || p.Blob.Refs > 1 {
			shared[at] = sharing{seen: known.seen + 1, refs: p.Blob.Refs, size: p.Blob.Size}
		} else {
			u.ExclusiveBytes += p.Blob.Size
		}
	}
	for at, blob := range shared {
		if blob.seen >= blob.refs {
			groups[at.group].ExclusiveBytes += blob.size
		} else {
			groups[at.group].SharedBytes += blob.size
		}
	}
	all := make([]Usage, 0, len(groups))
	for _, u := range groups {
		all = append(all, *u)
	}
	return all, nil
}

package workload_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// small is a store of a few references that was closed.
type small struct {
	target  workload.Target
	journal *workload.Journal
	shared  []string // two references to one blob
	alone   string
	deleted string
}

var (
	sharedContent  = workload.Content{Seed: 1, Size: 3000}
	aloneContent   = workload.Content{Seed: 2, Size: 5000}
	deletedContent = workload.Content{Seed: 3, Size: 100}
	place          = workload.Place{Session: "session", Conversation: "conversation"}
)

func open(t *testing.T, target workload.Target, j *workload.Journal) *workload.Client {
	t.Helper()
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: target.Dir, EnableDeduplication: true})
	require.NoError(t, err)
	return &workload.Client{Store: f, Journal: j}
}

func mustPut(t *testing.T, c *workload.Client, content workload.Content) string {
	t.Helper()
	ref, err := c.Put(context.Background(), content, place)
	require.NoError(t, err)
	return ref
}

func newSmall(t *testing.T) *small {
	t.Helper()
	s := &small{target: workload.Target{Dir: t.TempDir()}, journal: workload.NewJournal(nil, nil)}
	c := open(t, s.target, s.journal)
	s.shared = []string{mustPut(t, c, sharedContent), mustPut(t, c, sharedContent)}
	s.alone = mustPut(t, c, aloneContent)
	s.deleted = mustPut(t, c, deletedContent)
	require.NoError(t, c.Delete(context.Background(), s.deleted))
	require.NoError(t, c.Close())
	return s
}

var hold = workload.Held{Name: "a", On: engine.HoldTarget{Kind: engine.HoldSession, ID: place.Session}}

// hold puts a hold into force.
func (s *small) hold(t *testing.T) {
	t.Helper()
	c := open(t, s.target, s.journal)
	require.NoError(t, c.Hold(context.Background(), hold))
	require.NoError(t, c.Close())
}

// Policies that ended long ago, and that end long after.
const (
	past   = "2001-01-01T00:00:00Z"
	future = "2900-01-01T00:00:00Z"
)

// retain gives a reference policies, one after the other.
func (s *small) retain(t *testing.T, ref string, policies ...string) {
	t.Helper()
	c := open(t, s.target, s.journal)
	for _, p := range policies {
		require.NoError(t, c.Retain(context.Background(), ref, p))
	}
	require.NoError(t, c.Close())
}

// share stores equal bytes for two users, twice for one of them, under a
// configuration, while the journal has that each user's are shared alone.
func (s *small) share(t *testing.T, config engine.FileStoreConfig) {
	t.Helper()
	config.BaseDir = s.target.Dir
	f, err := engine.Open(context.Background(), config)
	require.NoError(t, err)
	c := &workload.Client{Store: f, Journal: s.journal, Scope: engine.ScopeUser}
	for _, user := range []string{"alice", "bob", "alice", ""} {
		_, err := c.Put(context.Background(), workload.Content{Seed: 9, Size: 700}, workload.Place{User: user})
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
}

// forgetUsage takes the rows from the index that say what users and sessions have.
func (s *small) forgetUsage(t *testing.T) {
	t.Helper()
	control := filepath.Join(s.target.Dir, ".mediabolt")
	db, err := bolt.Open(filepath.Join(control, "index.db"), 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket([]byte("usage")); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte("usage"))
		return err
	}))
	require.NoError(t, db.Close())
	// The store takes the pages of an index without sums as they are.
	require.NoError(t, os.Remove(filepath.Join(control, "index.sums")))
}

// file is the path of a reference's blob.
func (s *small) file(t *testing.T, ref string) string {
	t.Helper()
	c := open(t, s.target, s.journal)
	entry, err := c.Store.Stat(context.Background(), &storage.StorageReference{ID: ref})
	require.NoError(t, err)
	require.NoError(t, c.Store.Close())
	return filepath.Join(s.target.Dir, entry.Path)
}

// promises are those that a judgement finds broken.
func promises(t *testing.T, target workload.Target, j *workload.Journal) map[string]bool {
	t.Helper()
	verdict, err := workload.Judge(context.Background(), target, j)
	require.NoError(t, err)
	broken := map[string]bool{}
	for _, v := range verdict.Violations {
		t.Log(v)
		broken[v.Promise] = true
	}
	return broken
}

// The judge finds what is broken on purpose, and calls it by its name.
func TestJudgeFindsWhatIsBroken(t *testing.T) {
	cases := []struct {
		name   string
		harm   func(t *testing.T, s *small)
		broken []string
	}{
		{name: "nothing", harm: func(*testing.T, *small) {}},
		{name: "a lost file", broken: []string{"bytes are as they were stored", "every row has its file", "the verification finds nothing"},
			harm: func(t *testing.T, s *small) { require.NoError(t, os.Remove(s.file(t, s.alone))) }},
		{name: "other bytes", broken: []string{"bytes are as they were stored", "the verification finds nothing"},
			harm: func(t *testing.T, s *small) {
				name := s.file(t, s.alone)
				require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte{7}, aloneContent.Size), 0o600))
			}},
		{name: "a missing reference", broken: []string{"an acknowledged reference is there"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				require.NoError(t, c.Store.Delete(context.Background(), &storage.StorageReference{ID: s.shared[0]}))
				require.NoError(t, c.Store.Close())
			}},
		{name: "a resurrected reference", broken: []string{"an acknowledged delete is gone"},
			harm: func(_ *testing.T, s *small) {
				n := s.journal.Begin(workload.Op{Kind: workload.KindDelete, Ref: s.alone})
				s.journal.End(n, "", nil)
			}},
		{name: "a reference that failed", broken: []string{"a store that failed or had not begun leaves nothing"},
			harm: func(t *testing.T, s *small) {
				for _, op := range s.journal.Ops() {
					if op.Ref == s.alone {
						op.Ref, op.Outcome, op.Error = "", workload.OutcomeFailed, "no space"
						line, err := json.Marshal(op)
						require.NoError(t, err)
						require.NoError(t, s.journal.Add(line))
					}
				}
			}},
		{name: "a policy that was not given", broken: []string{"an acknowledged policy is there"},
			harm: func(_ *testing.T, s *small) {
				n := s.journal.Begin(workload.Op{Kind: workload.KindRetain, Ref: s.alone, Policy: future})
				s.journal.End(n, "", nil)
			}},
		{name: "a policy that nobody gave", broken: []string{"an acknowledged policy is there"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				_, err := c.Store.Retain(context.Background(), &storage.StorageReference{ID: s.alone}, future)
				require.NoError(t, err)
				require.NoError(t, c.Store.Close())
			}},
		{name: "an expiry of another policy", broken: []string{"an expiry is that of its policy"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				_, err := c.Store.Retain(context.Background(), &storage.StorageReference{ID: s.alone}, "100000h")
				require.NoError(t, err)
				require.NoError(t, c.Store.Close())
				n := s.journal.Begin(workload.Op{Kind: workload.KindRetain, Ref: s.alone, Policy: "100000h"})
				s.journal.End(n, "", nil)
			}},
		{name: "what is due and was not ended", broken: []string{"what an acknowledged Expire has ended is gone"},
			harm: func(t *testing.T, s *small) {
				s.retain(t, s.alone, past)
				s.journal.End(s.journal.Begin(workload.Op{Kind: workload.KindExpire}), "", nil)
			}},
		{name: "an end of what was extended", broken: []string{"an acknowledged reference is there"},
			harm: func(t *testing.T, s *small) {
				s.retain(t, s.alone, past, future)
				c := open(t, s.target, s.journal)
				require.NoError(t, c.Expire(context.Background()))
				require.NoError(t, c.Store.Delete(context.Background(), &storage.StorageReference{ID: s.alone}))
				require.NoError(t, c.Store.Close())
			}},
		{name: "an end before anything expired", broken: []string{"an acknowledged reference is there"},
			harm: func(t *testing.T, s *small) {
				s.retain(t, s.alone, past)
				c := open(t, s.target, s.journal)
				require.NoError(t, c.Store.Delete(context.Background(), &storage.StorageReference{ID: s.alone}))
				require.NoError(t, c.Store.Close())
			}},
		{name: "policies that came and went", harm: func(t *testing.T, s *small) {
			s.retain(t, s.alone, past)
			s.retain(t, s.shared[0], past, future)
			c := open(t, s.target, s.journal)
			require.NoError(t, c.Expire(context.Background()))
			require.ErrorIs(t, c.Retain(context.Background(), s.alone, future), storage.ErrNotFound)
			require.NoError(t, c.Retain(context.Background(), s.shared[0], past))
			require.NoError(t, c.Close())
		}},
		{name: "a lost hold", broken: []string{"an acknowledged hold is there"},
			harm: func(t *testing.T, s *small) {
				s.hold(t)
				require.NoError(t, os.Remove(filepath.Join(s.target.Dir, ".mediabolt", "holds")))
			}},
		{name: "damaged holds", broken: []string{"the holds can be listed", "the verification finds nothing"},
			harm: func(t *testing.T, s *small) {
				s.hold(t)
				require.NoError(t, os.Truncate(filepath.Join(s.target.Dir, ".mediabolt", "holds"), 600))
			}},
		{name: "a hold that is back", broken: []string{"a hold that ended, failed or had not begun is gone"},
			harm: func(t *testing.T, s *small) {
				s.hold(t)
				n := s.journal.Begin(workload.Op{Kind: workload.KindRelease, Hold: hold})
				s.journal.End(n, "", nil)
			}},
		{name: "a hold that failed", broken: []string{"a hold that ended, failed or had not begun is gone"},
			harm: func(t *testing.T, s *small) {
				s.hold(t)
				for _, op := range s.journal.Ops() {
					if op.Kind == workload.KindHold {
						op.Outcome, op.Error = workload.OutcomeFailed, "no space"
						line, err := json.Marshal(op)
						require.NoError(t, err)
						require.NoError(t, s.journal.Add(line))
					}
				}
			}},
		{name: "what is held is gone", broken: []string{"an acknowledged reference is there"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				require.ErrorContains(t, c.Refused(context.Background(), s.alone), "was deleted")
				require.NoError(t, c.Store.Close())
			}},
		{name: "a hold, and what it refuses", harm: func(t *testing.T, s *small) {
			s.hold(t)
			c := open(t, s.target, s.journal)
			require.NoError(t, c.Refused(context.Background(), s.alone))
			require.NoError(t, c.Close())
		}},
		{name: "bytes that two scopes share", broken: []string{"bytes are shared within their scope alone"},
			harm: func(t *testing.T, s *small) { s.share(t, engine.FileStoreConfig{EnableDeduplication: true}) }},
		{name: "bytes that are twice in a scope", broken: []string{"bytes are shared within their scope alone"},
			harm: func(t *testing.T, s *small) { s.share(t, engine.FileStoreConfig{}) }},
		{name: "bytes in their scopes", harm: func(t *testing.T, s *small) {
			s.share(t, engine.FileStoreConfig{EnableDeduplication: true, DedupScope: engine.ScopeUser})
		}},
		{name: "a quota that is exceeded", broken: []string{"no quota is exceeded"},
			harm: func(_ *testing.T, s *small) {
				n := s.journal.Begin(workload.Op{Kind: workload.KindOpen, Quota: engine.Quota{SessionBytes: 10_999}})
				s.journal.End(n, "", nil)
			}},
		{name: "a quota that is full", harm: func(_ *testing.T, s *small) {
			n := s.journal.Begin(workload.Op{Kind: workload.KindOpen, Quota: engine.Quota{SessionBytes: 11_000, TotalBytes: 8000}})
			s.journal.End(n, "", nil)
		}},
		{name: "a usage that is wrong", broken: []string{"usage is that of the references", "the verification finds nothing"},
			harm: func(t *testing.T, s *small) { s.forgetUsage(t) }},
		{name: "what a limit has refused and is there", broken: []string{"a store that failed or had not begun leaves nothing"},
			harm: func(t *testing.T, s *small) {
				for _, op := range s.journal.Ops() {
					if op.Ref == s.alone {
						op.Ref, op.Kind = "", workload.KindLimited
						line, err := json.Marshal(op)
						require.NoError(t, err)
						require.NoError(t, s.journal.Add(line))
					}
				}
			}},
		{name: "what does not fit is stored", broken: []string{"a store that failed or had not begun leaves nothing"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				require.ErrorContains(t, c.Limited(context.Background(), aloneContent, place), "was stored")
				require.ErrorContains(t, c.LimitedReader(context.Background(), aloneContent, place), "was stored")
				require.NoError(t, c.Close())
			}},
		{name: "what limits refuse", harm: func(t *testing.T, s *small) {
			f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: s.target.Dir, Quota: engine.Quota{SessionBytes: 12_000}})
			require.NoError(t, err)
			c := &workload.Client{Store: f, Journal: s.journal}
			require.NoError(t, c.Limited(context.Background(), aloneContent, place))
			require.NoError(t, c.LimitedReader(context.Background(), aloneContent, place))
			_, err = c.Put(context.Background(), aloneContent, place)
			require.ErrorIs(t, err, storage.ErrDiskSpace)
			require.Empty(t, s.journal.Failed(), "a refusal is no failure")
			require.NoError(t, c.Close())
		}},
		{name: "a reference that nobody stored", broken: []string{"every reference was stored"},
			harm: func(t *testing.T, s *small) {
				elsewhere := workload.NewJournal(nil, nil)
				elsewhere.Skip(1000)
				c := open(t, s.target, elsewhere)
				mustPut(t, c, aloneContent)
				require.NoError(t, c.Close())
			}},
		{name: "an orphan", broken: []string{"no file is without a row", "the verification finds nothing"},
			harm: func(t *testing.T, s *small) {
				name := s.file(t, s.alone)
				data, err := os.ReadFile(name)
				require.NoError(t, err)
				orphan := []byte(filepath.Base(name))
				if last := &orphan[len("a1b2c3-06h0aeyy8hrzvc6fkc554h3rs")]; *last == '0' {
					*last = '4'
				} else {
					*last = '0'
				}
				require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(name), string(orphan)), data, 0o600))
			}},
		{name: "a leftover beside the index", broken: []string{"nothing is left over"},
			harm: func(t *testing.T, s *small) {
				require.NoError(t, os.WriteFile(filepath.Join(s.target.Dir, ".mediabolt", "left"), nil, 0o600))
			}},
		{name: "no index", broken: []string{"the store opens"},
			harm: func(t *testing.T, s *small) {
				require.NoError(t, os.Remove(filepath.Join(s.target.Dir, ".mediabolt", "index.db")))
			}},
		{name: "too much to recover", broken: []string{"opening is bounded by what was in flight"},
			harm: func(t *testing.T, s *small) {
				c := open(t, s.target, s.journal)
				for seed := range uint64(4) {
					mustPut(t, c, workload.Content{Seed: 100 + seed, Size: 50})
				}
				copied := workload.Target{Dir: t.TempDir()}
				require.NoError(t, os.CopyFS(copied.Dir, os.DirFS(s.target.Dir)))
				require.NoError(t, c.Close())
				s.target = copied
			}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSmall(t)
			c.harm(t, s)
			broken := promises(t, s.target, s.journal)
			require.Len(t, broken, len(c.broken))
			for _, promise := range c.broken {
				require.True(t, broken[promise], promise)
			}
		})
	}
}

// Operations in flight may have happened or not, and what a judgement has seen
// of them stays so.
func TestJudgeOfOperationsInFlight(t *testing.T) {
	s := newSmall(t)
	before := s.journal.Ops()
	// Cut in the middle of the store of alone: it is there all the same.
	var cut *workload.Journal
	for _, op := range before {
		if op.Ref == s.alone {
			cut = s.journal.Cut(op.Ended-1, nil)
		}
	}
	require.NotNil(t, cut)
	broken := promises(t, s.target, cut)
	require.Empty(t, broken, "what began later is %s, which is gone again", s.deleted)
	verdict, err := workload.Judge(context.Background(), s.target, cut)
	require.NoError(t, err)
	require.Empty(t, verdict.Violations)
	require.Equal(t, 3, verdict.References())
	cut.Settle(verdict)

	c := open(t, s.target, s.journal)
	require.NoError(t, c.Store.Delete(context.Background(), &storage.StorageReference{ID: s.alone}))
	require.NoError(t, c.Store.Close())
	require.Equal(t, map[string]bool{"an acknowledged reference is there": true}, promises(t, s.target, cut))
}

// So it is with holds and releases in flight.
func TestJudgeOfHoldsInFlight(t *testing.T) {
	for _, kind := range []workload.Kind{workload.KindHold, workload.KindRelease} {
		for _, happened := range []bool{true, false} {
			s := newSmall(t)
			s.hold(t)
			if kind == workload.KindHold {
				s.journal = workload.NewJournal(nil, nil)
				s.target.Dir = t.TempDir()
				c := open(t, s.target, s.journal)
				require.NoError(t, c.Close())
			}
			s.journal.Begin(workload.Op{Kind: kind, Hold: hold})
			f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: s.target.Dir})
			require.NoError(t, err)
			if happened && kind == workload.KindHold {
				require.NoError(t, f.Hold(context.Background(), engine.Hold{Name: hold.Name, Target: hold.On}))
			} else if happened {
				_, err := f.ReleaseAll(context.Background(), hold.Name)
				require.NoError(t, err)
			}
			require.NoError(t, f.Close())
			verdict, err := workload.Judge(context.Background(), s.target, s.journal)
			require.NoError(t, err)
			require.Empty(t, verdict.Violations, "%s, happened: %v", kind, happened)
			s.journal.Settle(verdict)

			require.NoError(t, os.RemoveAll(filepath.Join(s.target.Dir, ".mediabolt", "holds")))
			want := map[string]bool{}
			if (kind == workload.KindHold) == happened {
				want["an acknowledged hold is there"] = true
			}
			require.Equal(t, want, promises(t, s.target, s.journal), "%s, happened: %v", kind, happened)
		}
	}
}

// So it is with policies and expiries in flight, of which some references may have
// ended. What they were found to be stays so.
func TestJudgeOfRetentionInFlight(t *testing.T) {
	ctx := context.Background()
	for _, given := range []bool{true, false} {
		s := newSmall(t)
		s.journal.Begin(workload.Op{Kind: workload.KindRetain, Ref: s.alone, Policy: future})
		give := func(policy string) {
			c := open(t, s.target, s.journal)
			_, err := c.Store.Retain(ctx, &storage.StorageReference{ID: s.alone}, policy)
			require.NoError(t, err)
			require.NoError(t, c.Store.Close())
		}
		if given {
			give(future)
		}
		verdict, err := workload.Judge(ctx, s.target, s.journal)
		require.NoError(t, err)
		require.Empty(t, verdict.Violations, "given: %v", given)
		s.journal.Settle(verdict)
		give(map[bool]string{true: "retain", false: future}[given])
		require.Contains(t, promises(t, s.target, s.journal), "an acknowledged policy is there", "given: %v", given)
	}
	for ended := range 3 {
		s := newSmall(t)
		s.retain(t, s.alone, past)
		s.retain(t, s.shared[0], past)
		s.journal.Begin(workload.Op{Kind: workload.KindExpire})
		due := []string{s.alone, s.shared[0]}
		end := func(refs ...string) {
			c := open(t, s.target, s.journal)
			for _, ref := range refs {
				require.NoError(t, c.Store.Delete(ctx, &storage.StorageReference{ID: ref}))
			}
			require.NoError(t, c.Store.Close())
		}
		end(due[:ended]...)
		verdict, err := workload.Judge(ctx, s.target, s.journal)
		require.NoError(t, err)
		require.Empty(t, verdict.Violations, "%d ended", ended)
		s.journal.Settle(verdict)
		require.Empty(t, promises(t, s.target, s.journal), "%d ended", ended)
		if ended < len(due) {
			end(due[ended])
			require.Contains(t, promises(t, s.target, s.journal), "an acknowledged reference is there", "%d ended", ended)
		}
	}
}

// A journal that was written down, its last line cut short, is the journal.
func TestJournalIsRead(t *testing.T) {
	var lines bytes.Buffer
	j := workload.NewJournal(nil, &lines)
	n := j.Begin(workload.Op{Kind: workload.KindStore, Content: sharedContent, Place: place})
	j.End(n, "a reference", nil)
	n = j.Begin(workload.Op{Kind: workload.KindDelete, Ref: "a reference"})
	whole := lines.Len()
	j.End(n, "", storage.ErrInDoubt)
	require.Len(t, j.Failed(), 1)

	read := workload.NewJournal(nil, nil)
	require.NoError(t, read.Read(bytes.NewReader(lines.Bytes()[:lines.Len()-1])))
	require.Equal(t, workload.OutcomeAcknowledged, read.Ops()[0].Outcome)
	require.Equal(t, workload.OutcomeInFlight, read.Ops()[1].Outcome)
	require.NoError(t, read.Read(bytes.NewReader(lines.Bytes()[whole:])))
	require.Equal(t, j.Ops(), read.Ops())
	read.Skip(5)
	require.EqualValues(t, 6, read.Begin(workload.Op{Kind: workload.KindClose}))
	require.Error(t, read.Add([]byte("{}")))
	require.Error(t, read.Add([]byte("no journal")))
}

// The workload passes judgement where nothing interrupts it, and so does the
// store at every moment that was acknowledged last.
func TestRun(t *testing.T) {
	target := workload.Target{Dir: filepath.Join(t.TempDir(), "made", "by the store")}
	j := workload.NewJournal(nil, nil)
	require.NoError(t, workload.Run(context.Background(), target, 1, j))
	require.Empty(t, j.Failed())
	kinds := map[workload.Kind]int{}
	for _, op := range j.Ops() {
		kinds[op.Kind]++
	}
	t.Log(kinds)
	for _, kind := range []workload.Kind{workload.KindOpen, workload.KindClose, workload.KindStore, workload.KindStoreReader, workload.KindDelete, workload.KindHarm,
		workload.KindHold, workload.KindRelease, workload.KindRefused, workload.KindRetain, workload.KindExpire} {
		require.NotZero(t, kinds[kind], kind)
	}
	require.Empty(t, promises(t, target, j))
}

// So does the one of limits, some of which refuse what would fit alone.
func TestRunLimits(t *testing.T) {
	target := workload.Target{Dir: filepath.Join(t.TempDir(), "store")}
	j := workload.NewJournal(nil, nil)
	require.NoError(t, workload.RunLimits(context.Background(), target, 1, j))
	require.Empty(t, j.Failed())
	var limited, refused int
	for _, op := range j.Ops() {
		switch {
		case op.Kind == workload.KindLimited:
			limited++
		case op.Outcome == workload.OutcomeFailed:
			refused++
		}
	}
	require.Equal(t, 10, limited)
	require.GreaterOrEqual(t, refused, 4)
	require.Empty(t, promises(t, target, j))
}

// So does the one of compactions, none of which fails.
func TestRunCompaction(t *testing.T) {
	target := workload.Target{Dir: filepath.Join(t.TempDir(), "store")}
	j := workload.NewJournal(nil, nil)
	require.NoError(t, workload.RunCompaction(context.Background(), target, 1, j))
	require.Empty(t, j.Failed())
	compactions := 0
	for _, op := range j.Ops() {
		if op.Kind == workload.KindCompact && op.Outcome == workload.OutcomeAcknowledged {
			compactions++
		}
	}
	require.Equal(t, 4, compactions)
	require.Empty(t, promises(t, target, j))
}

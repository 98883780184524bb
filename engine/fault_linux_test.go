package engine_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/certify/faulty"
	"github.com/mediabolt/mediabolt/certify/strict"
	"github.com/mediabolt/mediabolt/certify/workload"
	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

func init() { faulty.Main() }

// faultKinds are the faults to inject; At is set by the test.
var faultKinds = []struct {
	name  string
	fault faulty.Fault
	is    error // what the errors of the store wrap
}{
	{"EIO", faulty.Fault{Errno: syscall.EIO}, storage.ErrIO},
	{"EIO although it is durable", faulty.Fault{Errno: syscall.EIO, Changes: true, Durable: true}, storage.ErrIO},
	{"ENOSPC", faulty.Fault{Errno: syscall.ENOSPC, Changes: true}, storage.ErrDiskSpace},
	{"EDQUOT", faulty.Fault{Errno: syscall.EDQUOT, Changes: true}, storage.ErrDiskSpace},
	{"EROFS", faulty.Fault{Errno: syscall.EROFS, Changes: true}, storage.ErrPermission},
	{"short write", faulty.Fault{Errno: syscall.ENOSPC, Short: true}, storage.ErrDiskSpace},
	{"EIO from then on", faulty.Fault{Errno: syscall.EIO, Changes: true, Sticky: true}, storage.ErrIO},
	{"ENOSPC from then on", faulty.Fault{Errno: syscall.ENOSPC, Changes: true, Sticky: true}, storage.ErrDiskSpace},
	{"EROFS from then on", faulty.Fault{Errno: syscall.EROFS, Changes: true, Sticky: true}, storage.ErrPermission},
}

// faultRun is one use of a store with one fault.
type faultRun struct {
	mount  *faulty.Mount
	config engine.FileStoreConfig
	is     error

	client  *workload.Client
	journal *workload.Journal
	wrong   []string // what broke a promise
	failed  bool     // some call has failed
}

func (r *faultRun) complain(format string, args ...any) {
	r.wrong = append(r.wrong, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
}

// heard judges the error of a call.
func (r *faultRun) heard(what string, err error) {
	if err == nil {
		return
	}
	reopen := errors.Is(err, storage.ErrInDoubt) || strings.Contains(err.Error(), "reopen the store")
	told, e := r.mount.Told()
	switch {
	case e != nil:
		r.complain("%v", e)
	case told.Hit == "":
		r.complain("%s fails without a fault: %v", what, err)
	case !errors.Is(err, r.is) && !reopen:
		r.complain("%s: the error does not wrap %q: %v", what, r.is, err)
	case !strings.Contains(err.Error(), r.config.BaseDir):
		r.complain("%s: the error does not name the store: %v", what, err)
	}
	r.failed = true
}

// open opens the store, at the second attempt if a fault hits the first.
func (r *faultRun) open() bool {
	ctx := context.Background()
	var f *engine.FileStore
	for range 2 {
		n := r.journal.Begin(workload.Op{Kind: workload.KindOpen})
		var err error
		f, err = engine.Open(ctx, r.config)
		r.journal.End(n, "", err)
		if err == nil {
			r.client = &workload.Client{Store: f, Journal: r.journal}
			return true
		}
		r.heard("open", err)
	}
	return false
}

func (r *faultRun) put(seed uint64, size int) string {
	ref, err := r.client.Put(context.Background(), workload.Content{Seed: seed, Size: size}, workload.Place{Session: fmt.Sprint("session ", seed)})
	r.heard("store", err)
	return ref
}

func (r *faultRun) stream(seed uint64, size int) string {
	ref, err := r.client.PutReader(context.Background(), workload.Content{Seed: seed, Size: size}, workload.Place{Run: "run"})
	r.heard("store of a stream", err)
	return ref
}

func (r *faultRun) delete(ref string) {
	if ref != "" {
		r.heard("delete", r.client.Delete(context.Background(), ref))
	}
}

// hold has a hold begin and end on a reference that nobody deletes.
func (r *faultRun) hold(ref, name string) {
	if ref == "" {
		return
	}
	ctx := context.Background()
	h := workload.Held{Name: name, On: engine.HoldTarget{Kind: engine.HoldReference, ID: ref}}
	if err := r.client.Hold(ctx, h); err != nil {
		r.heard("hold", err)
		return
	}
	r.heard("deletion of what is held", r.client.Refused(ctx, ref))
	r.heard("release", r.client.Release(ctx, h))
}

// expire lets a reference expire.
func (r *faultRun) expire(ref string) {
	if ref == "" {
		return
	}
	ctx := context.Background()
	r.heard("retain", r.client.Retain(ctx, ref, "2900-01-01T00:00:00Z"))
	if err := r.client.Retain(ctx, ref, "2001-01-01T00:00:00Z"); err != nil {
		r.heard("retain", err)
	} else {
		r.put(1, 5000)
		r.heard("expire", r.client.Expire(ctx))
	}
}

func (r *faultRun) checkpoint() {
	r.heard("checkpoint", r.client.Store.Checkpoint(context.Background()))
}

// lose removes the file of a blob behind the store's back.
func (r *faultRun) lose(ref string, c workload.Content) {
	if ref == "" {
		return
	}
	e, err := r.client.Store.Stat(context.Background(), &storage.StorageReference{ID: ref})
	if err != nil {
		r.heard("stat", err)
		return
	}
	n := r.journal.Begin(workload.Op{Kind: workload.KindHarm, Content: c, Ref: ref})
	r.journal.End(n, "", os.Remove(filepath.Join(r.config.BaseDir, filepath.FromSlash(e.Path))))
}

// readAll reads every reference that must be there.
func (r *faultRun) readAll(when string) {
	live := map[string]workload.Content{}
	harmed := map[workload.Content]bool{}
	for _, op := range r.journal.Ops() {
		switch {
		case op.Outcome != workload.OutcomeAcknowledged && op.Kind == workload.KindDelete:
			delete(live, op.Ref) // may be gone
		case op.Kind == workload.KindRetain:
			delete(live, op.Ref) // may have expired
		case op.Outcome != workload.OutcomeAcknowledged, op.Kind == workload.KindRefused:
		case op.Kind == workload.KindDelete:
			delete(live, op.Ref)
		case op.Kind == workload.KindHarm:
			harmed[op.Content] = true
		case op.Ref != "":
			live[op.Ref] = op.Content
			delete(harmed, op.Content)
		}
	}
	for ref, c := range live {
		if harmed[c] {
			continue
		}
		before, _ := r.mount.Told()
		got, err := r.client.Store.Retrieve(context.Background(), &storage.StorageReference{ID: ref})
		after, _ := r.mount.Told()
		switch hit := before.Hit == "" && after.Hit != ""; {
		case err != nil && hit:
			r.heard("read", err)
		case err != nil:
			r.complain("%s, a read fails: %v", when, err)
		case got.Data != base64.StdEncoding.EncodeToString(c.Bytes()):
			r.complain("%s, a read of %s returns other bytes", when, ref)
		}
	}
}

// use uses the store in every way. A store that says that it must be reopened is.
func (r *faultRun) use() {
	if !r.open() {
		return
	}
	a := r.put(1, 5000)
	again := r.put(1, 5000)
	b := r.put(2, 300)
	long := r.stream(3, 1<<20+77)
	r.readAll("after stores")
	r.checkpoint()
	r.delete(a)
	r.delete(b)
	r.lose(again, workload.Content{Seed: 1, Size: 5000})
	healed := r.put(1, 5000)
	r.readAll("after deletes")
	r.checkpoint()
	r.delete(long)
	r.delete(healed)
	r.close()
	if !r.open() {
		return
	}
	c := r.put(4, 9000)
	r.expire(r.put(1, 5000))
	r.expire(r.put(7, 600))
	r.hold(r.put(5, 0), "a")
	r.delete(c)
	r.readAll("after a reopening")
	r.close()
}

func (r *faultRun) close() { r.heard("close", r.client.Close()) }

// goesOn requires of a store whose fault has passed that it works, or says that
// it must be reopened and works then.
func (r *faultRun) goesOn() {
	if !r.open() {
		r.complain("the store does not open although the fault has passed")
		return
	}
	if ref := r.put(6, 100); ref == "" {
		r.complain("a reopened store takes nothing although the fault has passed")
	}
	r.readAll("after the fault")
	r.close()
}

// bounded is the promise of the judge that a failed checkpoint leaves to the opening.
const bounded = "opening is bounded by what was in flight"

// judge judges what a power cut would leave now.
func (r *faultRun) judge(t *testing.T, when string, choice strict.Choice) {
	dir, err := os.MkdirTemp(scratchDir, "mediabolt-")
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(dir)) }()
	require.NoError(t, r.mount.Cut(dir, choice))
	target := workload.Target{Dir: filepath.Join(dir, filepath.Base(r.config.BaseDir))}
	if _, err := os.Stat(target.Dir); errors.Is(err, os.ErrNotExist) {
		require.NoError(t, os.Mkdir(target.Dir, 0o700))
	}
	verdict, err := workload.Judge(context.Background(), target, r.journal)
	require.NoError(t, err)
	for _, v := range verdict.Violations {
		if v.Promise != bounded {
			r.complain("%s, cut, %s survives: %s", when, choice, v)
		}
	}
}

// runFault uses a store while the nth call fails, and says what came of it.
func runFault(t *testing.T, fault faulty.Fault, is error, sync syncMode) (told faulty.Told, wrong []string) {
	t.Helper()
	return runFaultIn(t, is, sync, func(r *faultRun) {
		require.NoError(t, r.mount.Set(fault))
		r.use()
	})
}

// runFaultIn is runFault for a use of the store that sets the fault itself.
func runFaultIn(t *testing.T, is error, sync syncMode, use func(*faultRun)) (told faulty.Told, wrong []string) {
	t.Helper()
	dir, err := os.MkdirTemp(scratchDir, "mediabolt-")
	require.NoError(t, err)
	mount, err := faulty.New(dir, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, errors.Join(mount.Close(), os.Remove(dir))) }()
	r := &faultRun{mount: mount, is: is, journal: workload.NewJournal(nil, nil),
		config: engine.FileStoreConfig{BaseDir: filepath.Join(mount.Dir, "store"), EnableDeduplication: true, NoSyncFS: sync == nil}}
	if sync != nil {
		r.config = sync(r.config, mount.SyncFS)
	}
	use(r)
	told, err = mount.Told()
	require.NoError(t, err)
	r.judge(t, "after the fault", strict.Choice{Keep: strict.Nothing})
	r.judge(t, "after the fault", strict.Choice{Keep: strict.Everything})
	require.NoError(t, mount.Set(faulty.Fault{}))
	r.goesOn()
	r.judge(t, "after going on", strict.Choice{Keep: strict.Nothing})
	return told, r.wrong
}

// faultBudget is how long faults of all kinds are injected, if not all calls
// have failed before: of about 4,700 faults the longest form injects most.
func faultBudget() time.Duration {
	switch os.Getenv(proofEnv) {
	case "long":
		return 270 * time.Second
	case "short":
		return 18 * time.Second
	}
	return 10 * time.Second
}

// faultCaseEnv names a fault: its kind, the mode, and which call, with slashes.
const faultCaseEnv = "MEDIABOLT_FAULT_CASE"

// faultPlan is the faults of one kind in one mode.
type faultPlan struct {
	kind, mode string
	fault      faulty.Fault
	is         error
	numbers    []int         // of the calls to fail, in their order
	limit      time.Duration // for all of them; zero: none
}

// The nth call of a use of the store fails, for every n or, where the time does
// not suffice, for some at random: nothing that was acknowledged is lost, what
// failed leaves nothing, errors say what they are, and the store goes on.
func TestFaultAtEveryCall(t *testing.T) {
	requireFUSE(t)
	for _, p := range faultPlans(t) {
		t.Run(p.kind+"/"+p.mode, func(t *testing.T) {
			t.Parallel()
			p.run(t)
		})
	}
}

func (p *faultPlan) run(t *testing.T) {
	start, tried, hits := time.Now(), 0, map[string]int{}
	for _, n := range p.numbers {
		if tried > 0 && p.limit > 0 && time.Since(start) > p.limit {
			break
		}
		fault := p.fault
		fault.At = n
		told, wrong := runFault(t, fault, p.is, strictModes[p.mode])
		tried++
		hits[told.Hit]++ // "" where this run made fewer calls
		for _, w := range wrong {
			t.Errorf("call %d, a %s, answers %s: %s", n, told.Hit, p.kind, w)
		}
		if len(wrong) > 0 {
			t.Logf("%s='%s/%s/%d' go test -run TestFaultAtEveryCall ./engine", faultCaseEnv, p.kind, p.mode, n)
		}
	}
	t.Logf("%s: %d of %d calls failed: %v", howMany(tried, len(p.numbers)), tried, len(p.numbers), hits)
}

// faultPlans are the plans of all kinds and modes, the same share of the calls
// of each, or the one fault that is asked for.
func faultPlans(t *testing.T) (plans []*faultPlan) {
	t.Helper()
	if name := os.Getenv(faultCaseEnv); name != "" {
		return []*faultPlan{faultCase(t, name)}
	}
	seed := freshSeed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	calls, all := map[string]int{}, 0
	for _, kind := range faultKinds {
		for _, mode := range slices.Sorted(maps.Keys(strictModes)) {
			counted := fmt.Sprint(mode, kind.fault.Changes, kind.fault.Short)
			if calls[counted] == 0 {
				calls[counted] = countCalls(t, kind.fault, strictModes[mode])
			}
			p := &faultPlan{kind: kind.name, mode: mode, fault: kind.fault, is: kind.is, numbers: r.Perm(calls[counted])}
			for i := range p.numbers {
				p.numbers[i]++
			}
			plans, all = append(plans, p), all+len(p.numbers)
		}
	}
	// As many plans run at a time as there are processors.
	budget := faultBudget() * time.Duration(runtime.GOMAXPROCS(0))
	for _, p := range plans {
		p.limit = budget * time.Duration(len(p.numbers)) / time.Duration(all)
	}
	t.Logf("%d faults to inject in %v", all, faultBudget())
	return plans
}

// faultCase is the plan of one fault.
func faultCase(t *testing.T, name string) *faultPlan {
	t.Helper()
	words := strings.Split(name, "/")
	require.Len(t, words, 3, "%s is KIND/MODE/CALL", faultCaseEnv)
	at, err := strconv.Atoi(words[2])
	require.NoError(t, err)
	require.Contains(t, strictModes, words[1])
	for _, kind := range faultKinds {
		if kind.name == words[0] {
			return &faultPlan{kind: kind.name, mode: words[1], fault: kind.fault, is: kind.is, numbers: []int{at}}
		}
	}
	require.Fail(t, "no such kind of fault", words[0])
	return nil
}

// countCalls is how many calls a use of the store makes of those that a kind of
// fault can hit.
func countCalls(t *testing.T, kind faulty.Fault, sync syncMode) int {
	t.Helper()
	told, wrong := runFault(t, faulty.Fault{Changes: kind.Changes, Short: kind.Short}, nil, sync)
	require.Empty(t, wrong)
	require.NotZero(t, told.Calls)
	return told.Calls
}

// The sync of the directory that the store's own is made in fails. A second
// opening finds the store's directory there and must not take that for durable.
func TestFaultWhileTheStoreIsMade(t *testing.T) {
	requireFUSE(t)
	const syncOfTheParent = 3 // after the mkdir of the store and of .mediabolt
	told, wrong := runFault(t, faulty.Fault{At: syncOfTheParent, Errno: syscall.EIO, Changes: true}, storage.ErrIO, nil)
	require.Equal(t, "fsyncdir", told.Hit)
	require.Empty(t, wrong)
}

// faultSteps is how far the calls that fail are apart in the long, the short and any
// other form of a proof.
type faultSteps struct{ long, short, quick int }

// Of the holds all calls took 60 s, on two busy cores, of the moves 475 s.
var (
	holdFaults    = faultSteps{1, 5, 15}
	moveFaults    = faultSteps{8, 20, 30}
	rebuildFaults = faultSteps{4, 20, 50}
	restoreFaults = faultSteps{6, 40, 120}
	importFaults  = faultSteps{6, 40, 80}
)

func (s faultSteps) now() int {
	switch os.Getenv(proofEnv) {
	case "long":
		return s.long
	case "short":
		return s.short
	}
	return s.quick
}

// Calls of the journal of the holds fail, from its making to its compaction and
// reopening, in the long form each of them once. A hold or a release that has failed has not happened,
// which the judge knows, and one that is in doubt is settled by reopening.
func TestFaultInHolds(t *testing.T) { faultsIn(t, holdFaults, (*faultRun).useHolds) }

// Calls of an erasure and of a reorganization fail. What was decided is finished after
// a reopening, and every blob is where its row says.
func TestFaultInMoves(t *testing.T) { faultsIn(t, moveFaults, (*faultRun).useMoves) }

// Calls of a rebuild fail. It ends with an error, or goes on and tells of damage; another
// one has everything.
func TestFaultInRebuild(t *testing.T) { faultsIn(t, rebuildFaults, (*faultRun).useRebuild) }

// Calls of a restore fail, those on the backup too. What it leaves is refused, and another
// restore makes it whole.
func TestFaultInRestore(t *testing.T) { faultsIn(t, restoreFaults, (*faultRun).useRestore) }

// Calls of an import fail. What it has added stays, and another one adds the rest.
func TestFaultInImport(t *testing.T) { faultsIn(t, importFaults, (*faultRun).useImport) }

// fewWrites is less than any use of a store writes, so that one of its writes is short.
const fewWrites = 20

func faultsIn(t *testing.T, steps faultSteps, use func(*faultRun, *testing.T, faulty.Fault)) {
	t.Helper()
	requireFUSE(t)
	step := steps.now()
	seed := freshSeed(t)
	for _, kind := range faultKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			hits := map[string]int{}
			among := step
			if kind.fault.Short {
				among = min(step, fewWrites)
			}
			for n := 1 + int(seed%uint64(among)); ; n += step {
				fault := kind.fault
				fault.At = n
				told, wrong := runFaultIn(t, kind.is, nil, func(r *faultRun) { use(r, t, fault) })
				require.Empty(t, wrong, "call %d, a %s", n, told.Hit)
				if told.Hit == "" {
					break
				}
				hits[told.Hit]++
			}
			t.Logf("failed calls: %v", hits)
			require.NotEmpty(t, hits)
		})
	}
}

// useHolds uses holds, the fault being set when the store is open, and goes on after
// a reopening.
func (r *faultRun) useHolds(t *testing.T, fault faulty.Fault) {
	require.True(t, r.open())
	ref := r.put(1, 100)
	require.NoError(t, r.mount.Set(fault))
	r.hold(ref, "made and compacted")
	kept := workload.Held{Name: "kept", On: engine.HoldTarget{Kind: engine.HoldSession, ID: "session 1"}}
	r.heard("hold", r.client.Hold(context.Background(), kept))
	r.hold(ref, "appended")
	r.close()
	if r.open() {
		r.hold(ref, "after a reopening")
		r.close()
	}
}

// useMoves erases and reorganizes, the fault being set when the store is open, and
// reorganizes once more after a reopening.
func (r *faultRun) useMoves(t *testing.T, fault faulty.Fault) {
	ctx := context.Background()
	require.True(t, r.open())
	doomed, other := workload.Place{Session: "doomed"}, workload.Place{Session: "other"}
	var refs []string
	for seed := uint64(1); seed <= 3; seed++ {
		c := workload.Content{Seed: seed, Size: 2000}
		ref, err := r.client.Put(ctx, c, doomed)
		require.NoError(t, err)
		refs = append(refs, ref)
		if seed > 1 {
			_, err := r.client.Put(ctx, c, other)
			require.NoError(t, err)
		}
	}
	require.NoError(t, r.mount.Set(fault))
	r.heard("erasure", r.client.Erase(ctx, doomed.Session, refs...))
	r.close()
	r.config.Organization = storage.OrganizationFlat
	for range 2 {
		if r.open() {
			r.heard("reorganization", r.client.Reorganize(ctx))
			r.close()
		}
	}
}

// filled fills the store with references of every kind and closes it.
func (r *faultRun) filled(t *testing.T, then func()) *workload.Target {
	ctx := context.Background()
	require.True(t, r.open())
	shared := workload.Content{Seed: 1, Size: 3000}
	for _, place := range []workload.Place{{Session: "a"}, {Session: "a", Conversation: "b"}, {Policy: "2900-01-01T00:00:00Z"}} {
		_, err := r.client.Put(ctx, shared, place)
		require.NoError(t, err)
	}
	_, err := r.client.PutReader(ctx, workload.Content{Seed: 2, Size: 1<<20 + 77}, workload.Place{Run: "run"})
	require.NoError(t, err)
	ref, err := r.client.Put(ctx, workload.Content{Seed: 3, Size: 0}, workload.Place{Session: "a"})
	require.NoError(t, err)
	require.NoError(t, r.client.Hold(ctx, workload.Held{Name: "kept", On: engine.HoldTarget{Kind: engine.HoldReference, ID: ref}}))
	then()
	require.NoError(t, r.client.Close())
	return &workload.Target{Dir: r.config.BaseDir, Configure: func(c engine.FileStoreConfig) engine.FileStoreConfig {
		c.NoSyncFS = true
		return c
	}}
}

// useRebuild loses the index of a store, and rebuilds it twice at most, the fault being
// set before the first time. The second one has what the first one could not read.
func (r *faultRun) useRebuild(t *testing.T, fault faulty.Fault) {
	target := r.filled(t, func() {})
	lose := target.LoseIndex
	if fault.At/4%2 == 0 { // steps are even
		lose = target.DamageIndex
	}
	require.NoError(t, lose(r.journal))
	require.NoError(t, r.mount.Set(fault))
	r.config.RebuildIndex = true // what is left is rebuilt by the next opening
	for range 2 {
		err := target.Rebuild(context.Background(), r.journal)
		if err == nil {
			return
		}
		r.heardOf("rebuild", err)
	}
}

// heardOf judges the error of a call that also tells of damage, which what cannot be read
// is to a verification.
func (r *faultRun) heardOf(what string, err error) {
	damage := errors.Is(err, workload.ErrDamage) || errors.Is(err, storage.ErrCorrupted)
	if damage && r.is == storage.ErrIO && strings.Contains(err.Error(), syscall.EIO.Error()) {
		return
	}
	r.heard(what, err)
}

// useRestore restores a backup, twice if need be, the fault being set before.
func (r *faultRun) useRestore(t *testing.T, fault faulty.Fault) {
	ctx := context.Background()
	target := r.filled(t, func() {
		require.NoError(t, r.client.Backup(ctx, workload.Target{Dir: r.config.BaseDir}, engine.BackupOptions{}))
	})
	require.NoError(t, r.mount.Set(fault))
	for i := range 2 {
		err := target.Restore(ctx, r.journal)
		if err == nil || i > 0 && errors.Is(err, storage.ErrConflict) && r.isWhole(target.Dir+" restored") {
			return // the first one failed when it was whole, at the last sync or later
		}
		r.heardOf("restore", err)
		if strings.Contains(err.Error(), "left out") { // it is whole without
			require.NoError(t, target.RemoveRestored())
		}
	}
}

// isWhole says whether a store can be opened, which what a restore has not finished cannot.
func (r *faultRun) isWhole(dir string) bool {
	f, err := engine.Open(context.Background(), engine.FileStoreConfig{BaseDir: dir, NoCreate: true, NoSyncFS: true})
	return err == nil && f.Close() == nil
}

// useImport imports an archive of the store into another one, twice if need be, the fault
// being set before.
func (r *faultRun) useImport(t *testing.T, fault faulty.Fault) {
	ctx := context.Background()
	var archive bytes.Buffer
	target := r.filled(t, func() { require.NoError(t, r.client.Export(ctx, &archive)) })
	require.NoError(t, r.mount.Set(fault))
	for range 2 {
		err := target.Import(ctx, r.journal, archive.Bytes())
		r.heard("import", err)
		if err == nil {
			return
		}
	}
}

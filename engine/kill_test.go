package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// victimEnv holds a victim in JSON. A test binary that is started with it is
// that victim and runs no tests.
const victimEnv = "MEDIABOLT_KILL_VICTIM"

// victim is a process that works on a store until it is killed.
type victim struct {
	Dir   string
	Dedup bool
	Seed  uint64
	Round int

	f   *engine.FileStore
	ops atomic.Int64
	out sync.Mutex // held while a line is written
}

// victimWriters is how many goroutines a victim works with.
const victimWriters = 16

func init() {
	spec := os.Getenv(victimEnv)
	if spec == "" {
		return
	}
	v := &victim{}
	if err := json.Unmarshal([]byte(spec), v); err != nil {
		panic(err)
	}
	if err := v.work(); err != nil {
		v.say("error %v", err)
	}
	os.Exit(1)
}

// say writes one line to standard output at once: what was said before a kill
// reaches whoever reads the pipe.
//
//	ready
//	store OP SEED     before a Store of what seeded(SEED) is
//	stored OP ID      after it
//	delete OP ID      before a Delete
//	deleted OP        after it
//	error TEXT        something is wrong, and the victim ends
func (v *victim) say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ") + "\n"
	v.out.Lock()
	defer v.out.Unlock()
	_, _ = os.Stdout.WriteString(line) // whoever would be told is gone
}

func (v *victim) config() engine.FileStoreConfig {
	return engine.FileStoreConfig{BaseDir: v.Dir, EnableDeduplication: v.Dedup, LockTimeout: 10 * time.Second}
}

// kept is a reference that one goroutine of a victim has for itself.
type kept struct {
	id   string
	seed uint64
}

func (v *victim) work() (err error) {
	ctx := context.Background()
	if v.f, err = engine.Open(ctx, v.config()); err != nil {
		return err
	}
	v.say("ready")
	var share [victimWriters][]kept
	i := 0
	for e, err := range v.f.List(ctx, engine.Query{}) {
		if err != nil {
			return err
		}
		seed, err := strconv.ParseUint(e.Metadata.Labels["seed"], 10, 64)
		if err != nil {
			return err
		}
		share[i%victimWriters] = append(share[i%victimWriters], kept{e.Reference.ID, seed})
		i++
	}
	errs := make(chan error, victimWriters)
	for w := range victimWriters {
		go func() {
			r := rand.New(rand.NewPCG(v.Seed, uint64(v.Round*victimWriters+w)))
			mine := share[w]
			for {
				if err := v.step(ctx, r, &mine); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// step makes one call of a random kind.
func (v *victim) step(ctx context.Context, r *rand.Rand, mine *[]kept) error {
	switch n := r.IntN(100); {
	case len(*mine) == 0 || n < 50:
		return v.store(ctx, r, mine)
	case n < 75:
		return v.delete(ctx, r, mine)
	default:
		k := (*mine)[r.IntN(len(*mine))]
		got, err := v.f.Retrieve(ctx, &storage.StorageReference{ID: k.id})
		if err != nil {
			return err
		}
		if got.Data != base64.StdEncoding.EncodeToString(seeded(k.seed)) {
			return fmt.Errorf("%s: retrieved other bytes than those of seed %d", k.id, k.seed)
		}
		return nil
	}
}

func (v *victim) store(ctx context.Context, r *rand.Rand, mine *[]kept) (err error) {
	op := fmt.Sprintf("%d.%d", v.Round, v.ops.Add(1))
	seed := r.Uint64N(sharedSeeds)
	if r.IntN(3) == 0 {
		seed = r.Uint64()
	}
	m := storage.MediaMetadata{
		SessionID: fmt.Sprint("session ", r.IntN(20)),
		Labels:    map[string]string{"op": op, "seed": strconv.FormatUint(seed, 10)},
	}
	data := seeded(seed)
	v.say("store %s %d", op, seed)
	var ref *storage.StorageReference
	if len(data) > 1<<20 || r.IntN(2) == 0 {
		ref, err = v.f.StoreReader(ctx, bytes.NewReader(data), storage.MediaInfo{MimeType: "image/png"}, m)
	} else {
		ref, err = v.f.Store(ctx, content(data), m)
	}
	if err != nil {
		return err
	}
	v.say("stored %s %s", op, ref.ID)
	*mine = append(*mine, kept{ref.ID, seed})
	return nil
}

func (v *victim) delete(ctx context.Context, r *rand.Rand, mine *[]kept) error {
	i := r.IntN(len(*mine))
	k := (*mine)[i]
	*mine = append((*mine)[:i], (*mine)[i+1:]...)
	op := fmt.Sprintf("%d.%d", v.Round, v.ops.Add(1))
	v.say("delete %s %s", op, k.id)
	for range 1 + r.IntN(2) { // a second time is no different
		if err := v.f.Delete(ctx, &storage.StorageReference{ID: k.id}); err != nil {
			return err
		}
	}
	v.say("deleted %s", op)
	return nil
}

// Seeds below sharedSeeds are used by everybody; largeEvery is how many of any
// there are to one whose bytes are spooled.
const (
	sharedSeeds = 64
	largeEvery  = 32
)

// seeded is the bytes of a seed: usually up to 32 KiB, sometimes none, rarely
// more than a Store keeps in memory.
func seeded(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0x6d65646961))
	size := r.IntN(32 << 10)
	switch seed % largeEvery {
	case 0:
		size += 1 << 20
	case 1:
		size = 0
	}
	var key [32]byte
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data) // is documented to never fail
	return data
}

// promised is what a store must hold, by what its victims said.
type promised struct {
	live     map[string]uint64 // reference ID -> seed
	storing  map[string]uint64 // op -> seed, in flight at the kill
	deleting map[string]kept   // op -> reference, in flight at the kill

	stored, deleted, unsettled int // acknowledged, and in flight, in all rounds
}

// hear takes in one line of a victim.
func (m *promised) hear(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch {
	case line == "ready":
	case len(words) == 3 && words[0] == "store":
		seed, err := strconv.ParseUint(words[2], 10, 64)
		require.NoError(t, err)
		m.storing[words[1]] = seed
	case len(words) == 3 && words[0] == "stored":
		m.live[words[2]] = m.storing[words[1]]
		delete(m.storing, words[1])
		m.stored++
	case len(words) == 3 && words[0] == "delete":
		m.deleting[words[1]] = kept{words[2], m.live[words[2]]}
		delete(m.live, words[2])
	case len(words) == 2 && words[0] == "deleted":
		delete(m.deleting, words[1])
		m.deleted++
	default:
		require.Fail(t, "the victim says: "+line)
	}
}

// check opens a store whose victim was killed and compares it with what was
// promised, byte for byte. What was in flight may be there or not, and is then
// settled.
func (m *promised) check(t *testing.T, config engine.FileStoreConfig) {
	t.Helper()
	ctx := context.Background()
	f, err := engine.Open(ctx, config)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.Empty(t, leftInStaging(t, config.BaseDir), "staging after Open")

	there := map[string]bool{}
	paths := map[string]int64{} // references by the path of their blob
	refs := map[string]int64{}
	var want engine.Stats
	for e, err := range f.List(ctx, engine.Query{}) {
		require.NoError(t, err)
		seed := m.settle(t, &e)
		there[e.Reference.ID] = true
		paths[e.Path]++
		refs[e.Path] = e.Refs
		data := seeded(seed)
		require.Truef(t, bytes.Equal(data, mustRetrieve(t, f, &e.Reference)), "%s has other bytes than those of seed %d", e.Reference.ID, seed)
		want.References++
		want.LogicalBytes += int64(len(data))
		if paths[e.Path] == 1 {
			want.Blobs++
			want.PhysicalBytes += int64(len(data))
		}
	}
	for id, seed := range m.live {
		require.Truef(t, there[id], "acknowledged reference %s (seed %d) is gone", id, seed)
	}
	require.Equal(t, paths, refs, "refcounts are the numbers of references")
	got, err := f.Stats(ctx)
	require.NoError(t, err)
	want.SavedBytes, want.IndexBytes, want.Healed = want.LogicalBytes-want.PhysicalBytes, got.IndexBytes, got.Healed
	require.Equal(t, want, got)
	require.Zero(t, got.Healed)
	require.Empty(t, damage(t, f))
	clear(m.storing)
	clear(m.deleting)
}

// settle finds a listed reference among what was promised or in flight, makes
// it promised, and returns its seed.
func (m *promised) settle(t *testing.T, e *engine.Entry) uint64 {
	t.Helper()
	id := e.Reference.ID
	if seed, acknowledged := m.live[id]; acknowledged {
		return seed
	}
	for op, k := range m.deleting {
		if k.id == id {
			delete(m.deleting, op)
			m.live[id] = k.seed
			return k.seed
		}
	}
	op := e.Metadata.Labels["op"]
	seed, stored := m.storing[op]
	require.Truef(t, stored, "reference %s of operation %s was deleted, or never stored", id, op)
	delete(m.storing, op)
	m.live[id] = seed
	return seed
}

// runVictim starts a victim, kills it after a while, and adds what it said to
// m. One in five is killed without waiting until it has opened the store.
func runVictim(t *testing.T, v *victim, r *rand.Rand, m *promised) {
	t.Helper()
	spec, err := json.Marshal(v)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), victimEnv+"="+string(spec))
	var complaints bytes.Buffer // of the race detector, or a panic
	child.Stderr = &complaints
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())

	said, ready := make(chan []string, 1), make(chan struct{})
	go func() {
		var lines []string
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			if lines = append(lines, scan.Text()); len(lines) == 1 {
				close(ready)
			}
		}
		said <- lines
	}()
	wait := time.Duration(r.Int64N(int64(400 * time.Millisecond)))
	if v.Round%5 != 4 {
		select {
		case <-ready:
		case <-time.After(time.Minute):
			t.Error("the victim does not open the store")
		}
	}
	time.Sleep(wait)
	require.NoError(t, child.Process.Kill())
	lines := <-said
	_ = child.Wait() // says that it was killed
	require.Empty(t, complaints.String())
	for _, line := range lines {
		m.hear(t, line)
	}
	m.unsettled += len(m.storing) + len(m.deleting)
}

func killRounds(t *testing.T, rounds int, dedup bool) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MEDIABOLT_KILL_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d", seed)
	v := &victim{Dir: t.TempDir(), Dedup: dedup, Seed: seed}
	config := v.config()
	m := &promised{live: map[string]uint64{}, storing: map[string]uint64{}, deleting: map[string]kept{}}
	r := rand.New(rand.NewPCG(seed, 0))
	for v.Round = range rounds {
		runVictim(t, v, r, m)
		m.check(t, config)
	}
	require.NotEmpty(t, m.live)
	t.Logf("%d rounds: %d stores and %d deletes acknowledged, %d calls in flight, %d references in the end",
		rounds, m.stored, m.deleted, m.unsettled, len(m.live))
	require.NotZero(t, m.unsettled, "no round interrupted anything")
	requireSettled(t, config)
}

// requireSettled requires that nothing is left to recover in a closed store.
func requireSettled(t *testing.T, config engine.FileStoreConfig) {
	t.Helper()
	f := mustOpen(t, config)
	require.Empty(t, leftInStaging(t, config.BaseDir))
	require.NoError(t, f.Close())
}

// A process is killed with SIGKILL at random moments, again and again, on one
// store that 16 goroutines work on. MEDIABOLT_KILL_ROUNDS says how often.
func TestKill(t *testing.T) {
	rounds := 50
	if s := os.Getenv("MEDIABOLT_KILL_ROUNDS"); s != "" {
		var err error
		rounds, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	killRounds(t, rounds, true)
}

func TestKillWithoutDedup(t *testing.T) {
	killRounds(t, 5, false)
}

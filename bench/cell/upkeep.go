package cell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/mediabolt/mediabolt/engine"
	"github.com/mediabolt/mediabolt/storage"
)

// upkeepGCPercent is GOGC of a pass over a whole store: the default, for how much
// memory it takes is half of the question.
const upkeepGCPercent = 100

// passes are the operations that go over a whole store once. Each answers how many
// references it has seen.
var passes = map[string]func(ctx context.Context, dir string) (int64, error){
	Verify: verifyWhole, Backup: backupWhole, Rebuild: rebuildWhole,
}

// isPass says whether the operation of a cell is a pass over a whole store, which has
// a file and a sidecar for each of its references.
func (c *Cell) isPass() bool { return passes[c.Op] != nil }

// measurePass measures one pass. Ops are the references.
func measurePass(ctx context.Context, c *Cell, dir string) (*Result, error) {
	debug.SetGCPercent(upkeepGCPercent)
	syncAll()
	resetRSS()
	r := &Result{Cell: *c, Ops: int64(c.Refs)}
	var err error
	if r.ProcessWritten, r.DeviceWritten, err = written(dir); err != nil {
		return nil, err
	}
	m, begin := startMeter(), time.Now()
	r.References, err = passes[c.Op](ctx, dir)
	took := time.Since(begin)
	m.end()
	switch {
	case err != nil:
		return nil, err
	case r.References != r.Ops:
		return nil, fmt.Errorf("saw %d of %d references", r.References, r.Ops)
	}
	r.Seconds, r.PerSecond = took.Seconds(), float64(r.Ops)/took.Seconds()
	r.AllocsPerOp = float64(m.allocs) / float64(r.Ops)
	r.HeapPeak, r.HeapLive, r.RSSPeak = m.heap, m.live, rssPeak()
	syncAll()
	process, device, err := written(dir)
	r.ProcessWritten, r.DeviceWritten = process-r.ProcessWritten, device-r.DeviceWritten
	return r, err
}

// onStore opens the store in dir, does something with it and closes it.
func onStore(ctx context.Context, dir string, do func(*engine.FileStore) (int64, error)) (refs int64, err error) {
	s, err := engine.Open(ctx, engine.FileStoreConfig{BaseDir: dir, EnableDeduplication: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

func verifyWhole(ctx context.Context, dir string) (int64, error) {
	return onStore(ctx, dir, func(s *engine.FileStore) (seen int64, err error) {
		// Every blob of the store has one reference.
		opts := engine.VerifyOptions{Progress: func(p engine.VerifyProgress) { seen = p.Blobs }}
		for f, err := range s.Verify(ctx, opts) {
			if err != nil {
				return 0, err
			}
			if f.Severity == storage.SeverityDamage {
				return 0, fmt.Errorf("%s: %s: %s", f.Kind, f.Path, f.Detail)
			}
		}
		return seen, nil
	})
}

// backupWhole backs up with hard links, beside the store. The run that the store is
// of removes both.
func backupWhole(ctx context.Context, dir string) (int64, error) {
	dest, err := os.MkdirTemp(filepath.Dir(dir), "backup-")
	if err != nil {
		return 0, err
	}
	return onStore(ctx, dir, func(s *engine.FileStore) (int64, error) {
		done, err := s.Backup(ctx, dest, engine.BackupOptions{})
		return done.References, err
	})
}

func rebuildWhole(ctx context.Context, dir string) (int64, error) {
	done, err := engine.Rebuild(ctx, engine.FileStoreConfig{BaseDir: dir}, engine.RebuildOptions{})
	if err == nil && done.Damaged+done.Adopted+done.Recovered > 0 {
		err = fmt.Errorf("not all came from sidecars: %+v", done)
	}
	return done.References, err
}

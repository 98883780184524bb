package workload

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
)

// controlDir is where a store keeps what is no blob; control is what may be
// there when it has just been opened.
const controlDir = ".mediabolt"

var control = map[string]bool{"index.db": true, "index.sums": true, "log.0": true, "log.1": true, "reserve": true, "holds": true,
	"erasures": true, "erasing": true, "origins": true, "restored": true}

// tree walks the store's directory with plain system calls and compares it with
// the references that were listed.
func (j *judge) tree(when string) {
	blobs := map[string]bool{} // by path; true once it was met
	for _, e := range j.verdict.present {
		blobs[e.Path] = false
	}
	err := fs.WalkDir(os.DirFS(j.target.Dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if rest, inside := strings.CutPrefix(name, controlDir+"/"); inside {
			if !control[rest] {
				j.add("nothing is left over", 0, "", "%s %s", name, when)
			}
			return nil
		}
		if _, named := blobs[strings.TrimSuffix(name, ".meta")]; !named {
			j.add("no file is without a row", 0, "", "%s %s", name, when)
		}
		if _, blob := blobs[name]; blob {
			blobs[name] = true
		}
		return nil
	})
	if err != nil {
		j.add("the tree can be walked", 0, "", "%v", err)
		return
	}
	for name, met := range blobs {
		if !met && !j.damaged[name] {
			j.add("every row has its file", 0, "", "%s is not there %s", path.Clean(name), when)
		}
	}
}

// recoveryLog is a slog.Handler that keeps what a store says of its recovery.
type recoveryLog struct {
	mu    sync.Mutex // guards the rest
	last  Recovered
	found bool
}

func (r *recoveryLog) Enabled(context.Context, slog.Level) bool { return true }
func (r *recoveryLog) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recoveryLog) WithGroup(string) slog.Handler            { return r }

func (r *recoveryLog) Handle(_ context.Context, record slog.Record) error {
	if record.Message != "recovered" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = true
	record.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "staged":
			r.last.Staged = a.Value.Int64()
		case "unlinks":
			r.last.Unlinks = a.Value.Int64()
		case "sidecar_lines":
			r.last.SidecarLines = a.Value.Int64()
		}
		return true
	})
	return nil
}

// recovered is what the opening had to look at; found is false when that was
// nothing.
func (r *recoveryLog) recovered() (_ Recovered, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.found
}

package engine

import (
	"context"
	"sync"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// verifyPage is how many blob rows are read at a time. A worker is given a piece
// of some of them: of so few rows and bytes, a second of a limited rate at most,
// that little is looked at twice after an interruption, and so many rows that
// passing them on costs nothing.
const (
	verifyPage = 256
	pieceRows  = 64
	pieceBytes = 8 << 20
)

// piece is blobs, in order of their keys, that one worker looks at.
type piece struct {
	nth  int
	rows []storage.BlobRow
}

// looked is what came of a piece.
type looked struct {
	nth          int
	last         storage.BlobKey
	blobs, bytes int64
	findings     []storage.Finding
	doubts       []storage.BlobRow // whose sidecars lack something, or so it seems
	err          error
}

// rows looks at the file and the sidecar of every row behind the place.
func (v *verification) rows() error {
	v.step = VerifyBlobs
	ctx, stop := context.WithCancel(v.ctx)
	pieces, results := make(chan piece), make(chan looked)
	var busy sync.WaitGroup
	busy.Go(func() {
		defer close(pieces)
		if err := v.cut(ctx, pieces); err != nil {
			offer(ctx, results, looked{err: err})
		}
	})
	for range v.opts.Workers {
		busy.Go(func() {
			for p := range pieces {
				if !offer(ctx, results, v.look(ctx, &p)) {
					return
				}
			}
		})
	}
	go func() { busy.Wait(); close(results) }()
	defer func() {
		stop()
		for range results { // until nobody uses the store any more
		}
	}()
	return v.gather(results)
}

// offer sends, unless ctx ends before.
func offer[T any](ctx context.Context, to chan<- T, what T) bool {
	select {
	case to <- what:
		return true
	case <-ctx.Done():
		return false
	}
}

// cut reads the rows and cuts them into pieces.
func (v *verification) cut(ctx context.Context, pieces chan<- piece) error {
	after, most := v.place.key, int64(pieceBytes)
	if v.opts.Rate > 0 {
		most = min(most, v.opts.Rate)
	}
	for nth := 0; ; {
		page, err := v.s.index.Blobs(ctx, after, verifyPage)
		if err != nil {
			return err
		}
		for rest := page; len(rest) > 0; nth++ {
			n, bytes := 0, int64(0)
			for n < len(rest) && n < pieceRows && (n == 0 || bytes+v.toRead(&rest[n]) <= most) {
				bytes += v.toRead(&rest[n])
				n++
			}
			if !offer(ctx, pieces, piece{nth, rest[:n]}) {
				return ctx.Err()
			}
			after, rest = rest[n-1].Key, rest[n:]
		}
		if len(page) < verifyPage {
			return nil
		}
	}
}

// toRead is how many bytes of a blob are to be read.
func (v *verification) toRead(row *storage.BlobRow) int64 {
	if v.opts.Depth == DepthQuick || !v.sampled(row.Key) {
		return 0
	}
	return row.Size
}

// look looks at a piece.
func (v *verification) look(ctx context.Context, p *piece) looked {
	l := looked{nth: p.nth, blobs: int64(len(p.rows)), last: p.rows[len(p.rows)-1].Key}
	for i := range p.rows {
		row := &p.rows[i]
		l.bytes += v.toRead(row)
		kind, _, err := v.checkFile(ctx, row)
		if err == nil && kind != "" {
			err = v.recheckFile(ctx, row, &l)
		}
		fault := ""
		if err == nil {
			fault, err = v.s.sidecarFault(ctx, row)
		}
		if err != nil {
			return looked{err: err}
		}
		if fault != "" {
			l.doubts = append(l.doubts, *row)
		}
	}
	return l
}

// recheckFile looks at the file, which may have been healed, before the row: one
// that stands after has stood all along.
func (v *verification) recheckFile(ctx context.Context, row *storage.BlobRow, l *looked) error {
	kind, detail, err := v.checkFile(ctx, row)
	if err != nil || kind == "" {
		return err
	}
	stands, err := v.s.stands(ctx, row)
	if err == nil && stands {
		l.findings = append(l.findings, storage.Finding{Kind: kind, Path: row.Path, Blob: row.Key.String(), Detail: detail})
	}
	return err
}

// gathering is what came of pieces and the place is not behind yet.
type gathering struct {
	next    int // piece, the first that is not behind the place
	done    map[int]looked
	doubts  []storage.BlobRow
	settled time.Time
}

// settlePause is how long a doubt waits for others at most.
const settlePause = time.Second

// gather tells what was found, and moves the place on.
func (v *verification) gather(results <-chan looked) error {
	g := &gathering{done: map[int]looked{}, settled: time.Now()}
	tick := time.NewTicker(progressPause)
	defer tick.Stop()
	for {
		select {
		case l, more := <-results:
			switch {
			case v.ctx.Err() != nil:
				return v.ctx.Err()
			case l.err != nil:
				return l.err
			case !more:
				return v.settle(g)
			}
			for _, f := range l.findings {
				if err := v.report(f); err != nil {
					return err
				}
			}
			v.blobs += l.blobs
			g.done[l.nth] = l
			g.doubts = append(g.doubts, l.doubts...)
			if n := len(g.doubts); n == 0 || n >= doubtsAtOnce || time.Since(g.settled) > settlePause {
				if err := v.settle(g); err != nil {
					return err
				}
			}
		case <-tick.C:
			v.progress()
		}
	}
}

// settle settles doubts, and moves the place behind all that has been told.
func (v *verification) settle(g *gathering) error {
	if err := v.sidecars(g.doubts); err != nil {
		return err
	}
	g.doubts, g.settled = g.doubts[:0], time.Now()
	for {
		l, done := g.done[g.next]
		if !done {
			return nil
		}
		v.place.key = l.last
		v.place.blobs += l.blobs
		v.place.bytes += l.bytes
		delete(g.done, g.next)
		g.next++
	}
}

// sidecars tells of the blobs among these whose sidecars lack something.
func (v *verification) sidecars(doubts []storage.BlobRow) error {
	if len(doubts) == 0 {
		return nil
	}
	debt, err := v.s.index.Debt(v.ctx)
	if err != nil {
		return err
	}
	owed := make(map[storage.BlobKey]bool, len(debt.Mirrors))
	for _, m := range debt.Mirrors {
		owed[m.Blob] = true
	}
	for i := range doubts {
		if owed[doubts[i].Key] {
			continue // lines that are still owed are no fault of the sidecar
		}
		detail, err := v.s.lockedSidecarFault(v.ctx, &doubts[i])
		if err != nil {
			return err
		}
		if detail == "" {
			continue
		}
		f := storage.Finding{Kind: storage.FindingSidecar, Path: doubts[i].Path + sidecarSuffix, Blob: doubts[i].Key.String(), Detail: detail}
		if err := v.report(f); err != nil {
			return err
		}
	}
	return nil
}

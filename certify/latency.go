package certify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Latency is how long one operation took, over many.
type Latency struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_us"`
	P95     float64 `json:"p95_us"`
	P99     float64 `json:"p99_us"`
	Max     float64 `json:"max_us"`
}

// latencyOf sorts samples and takes the nearest ranks.
func latencyOf(samples []time.Duration) Latency {
	if len(samples) == 0 {
		return Latency{}
	}
	slices.Sort(samples)
	at := func(percent int) float64 {
		rank := (len(samples)*percent + 99) / 100
		return float64(samples[max(rank, 1)-1].Nanoseconds()) / 1000
	}
	return Latency{Samples: len(samples), P50: at(50), P95: at(95), P99: at(99), Max: at(100)}
}

// What is measured: a file of the size that the benchmarks use, and blocks of
// the size that filesystems use, overwritten in a region as large as a segment
// of the store's log.
const (
	durableSize = 100 << 10
	blockSize   = 4 << 10
	regionSize  = 8 << 20
	minSamples  = 20 // however long they take
	maxSamples  = 5000
)

// sample takes samples for a while.
func sample(ctx context.Context, slice time.Duration, once func(n int) (time.Duration, error)) (Latency, error) {
	var samples []time.Duration
	for until := time.Now().Add(slice); len(samples) < minSamples || len(samples) < maxSamples && time.Now().Before(until); {
		if err := ctx.Err(); err != nil {
			return Latency{}, err
		}
		took, err := once(len(samples))
		if err != nil {
			return Latency{}, err
		}
		samples = append(samples, took)
	}
	return latencyOf(samples), nil
}

// durableWrites measures creating a file, writing it, making it durable and
// renaming it, in dir.
func durableWrites(ctx context.Context, dir string, slice time.Duration) (Latency, error) {
	data := content(sizeClasses)[:durableSize]
	return sample(ctx, slice, func(n int) (time.Duration, error) {
		// Few names, so that the folder stays small.
		staged, final := filepath.Join(dir, "staged"), filepath.Join(dir, fmt.Sprint("final-", n%64))
		begun := time.Now()
		err := writeDurably(staged, data)
		if err == nil {
			err = os.Rename(staged, final)
		}
		return time.Since(begun), err
	})
}

func writeDurably(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = datasync(f)
	}
	return errors.Join(err, f.Close())
}

// overwrites measures making a block durable that takes the place of one that
// was durable before: a flush, and no metadata.
func overwrites(ctx context.Context, dir string, slice time.Duration) (_ Latency, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "region"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return Latency{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for at := int64(0); at < regionSize; at += spooledSize {
		if _, err := f.WriteAt(content(uint64(at) * sizeClasses)[:spooledSize], at); err != nil {
			return Latency{}, err
		}
	}
	if err := f.Sync(); err != nil {
		return Latency{}, err
	}
	block := content(sizeClasses)[:blockSize]
	return sample(ctx, slice, func(n int) (time.Duration, error) {
		block[0] = byte(n)
		if _, err := f.WriteAt(block, int64(n)*blockSize%regionSize); err != nil {
			return 0, err
		}
		begun := time.Now()
		err := datasync(f)
		return time.Since(begun), err
	})
}

// appends measures making a block durable by which a file grows: a flush, and
// what the filesystem writes beside.
func appends(ctx context.Context, dir string, slice time.Duration) (_ Latency, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "growing"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Latency{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := content(sizeClasses)[:blockSize]
	return sample(ctx, slice, func(int) (time.Duration, error) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		begun := time.Now()
		err := f.Sync()
		return time.Since(begun), err
	})
}

// hardLinks says whether dir's filesystem has them.
func hardLinks(dir string) (bool, error) {
	name := filepath.Join(dir, "linked")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return false, err
	}
	err := os.Link(name, name+"-again")
	if errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return err == nil, nil
}
